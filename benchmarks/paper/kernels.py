"""The kernel plot: one convolution with its operands and result in either memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from autotm_jax.simulate import OPTANE, STREAMING_STORES, Kernel, Pass

from .posing import MACHINE
from .registry import experiment
from .report import Cell, Report, Table
from .study import Study


CHANNELS, SIZE, BATCH, WINDOW = 128, 48, 128, 3

TENSORS = ("input", "weights", "output")


def convolution() -> Kernel:
    """3x3, 128 to 128 channels, 48x48, batch 128, in float32."""
    image = 4 * BATCH * SIZE * SIZE * CHANNELS
    weights = 4 * WINDOW * WINDOW * CHANNELS * CHANNELS
    flops = 2 * BATCH * SIZE * SIZE * WINDOW * WINDOW * CHANNELS * CHANNELS
    seconds = flops / MACHINE.flop_rate("float32")
    return Kernel((Pass(seconds, {0: image, 1: weights}, {2: image}),))


@experiment("kernels")
def kernels(study: Study) -> Report:
    """All eight placements, relative to all in DRAM."""
    del study  # it takes no time in either form
    kernel = convolution()
    rows: list[tuple[Cell, ...]] = []
    for places in itertools.product(("DRAM", "Optane"), repeat=len(TENSORS)):
        slow = {t for t, place in enumerate(places) if place == "Optane"}
        times = [kernel.time(m, slow) for m in (OPTANE, STREAMING_STORES)]
        fast = kernel.time(OPTANE)
        relative = (fast / time for time in times)
        alone = kernel.passes[0].traffic(OPTANE, slow)
        rows.append((*places, 1e3 * times[0], *relative, 1e3 * alone))
    return Report(
        "simulated time of one convolution by placement",
        "the same eight placements, measured; its figures were not read.",
        "times are a roofline's: reading Optane hides behind arithmetic, and only "
        "writing there by ordinary stores takes longer than that.",
        (
            Table(
                "A 3x3 convolution, 128 to 128 channels, 48x48, batch 128, simulated",
                (
                    *TENSORS,
                    "ms",
                    "performance",
                    "performance, streaming stores",
                    "memory alone, ms",
                ),
                tuple(rows),
            ),
        ),
        lambda figure: _draw(figure, rows),
    )


def _draw(figure: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    axes = figure.subplots()
    labels = ["\n".join(row[:3]) for row in rows]
    for i, name in enumerate(("ordinary stores", "streaming stores")):
        at = [x + 0.4 * (i - 0.5) for x in range(len(rows))]
        axes.bar(at, [row[4 + i] for row in rows], 0.4, label=name)
    axes.set_xticks(range(len(rows)), labels, fontsize=7)
    axes.set_xlabel("input, weights, output")
    axes.set_ylabel("performance relative to all in DRAM\n(simulated)")
    figure.legend(loc="outside upper center", ncols=2)
