"""Figure 7: speed at slow:fast ratios, and what is lost against all of it in DRAM."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from autotm_jax.simulate import Outcome

from .posing import Posed
from .registry import experiment
from .report import Cell, Report, Table
from .study import DEFAULT, GB, Study


RATIOS = (8, 4, 1)

# In the order of the columns.
WAYS = ("first touch", "static", "synchronous")

# Geometric mean losses of the paper at 4:1, in percent.
PAPER = {"first touch": 71.9, "synchronous": 27.7}


def loss(fast: Sequence[float], found: Sequence[float]) -> float:
    """The loss against all-fast: 1 - the geometric mean of T_fast / T, in percent."""
    logs = [math.log(a / b) for a, b in zip(fast, found, strict=True)]
    return 100 * (1 - math.exp(sum(logs) / len(logs)))


def ways(study: Study) -> dict[str, Callable[[Posed, float], Outcome]]:
    """How tensors are placed, by name."""
    return {
        "first touch": study.first_touch,
        "static": study.static,
        "synchronous": study.synchronous,
    }


@experiment("ratios")
def ratios(study: Study) -> Report:
    """Four networks, three ratios, three ways to place their tensors."""
    chosen = RATIOS[1:2] if study.quick else RATIOS
    speed: list[tuple[Cell, ...]] = []
    losses: list[tuple[Cell, ...]] = []
    factors: list[tuple[Cell, ...]] = []
    for name in study.conventional:
        row: list[Cell] = [name]
        for setting in study.settings:
            case = study.posed(name, setting=setting)
            row.append(study.all_slow(case).seconds / study.all_fast(case).seconds)
        factors.append(tuple(row))
    for setting in study.settings:
        cases = {n: study.posed(n, setting=setting) for n in study.conventional}
        fast = [study.all_fast(case).seconds for case in cases.values()]
        for ratio in chosen:
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for name, case in cases.items():
                limit = case.limit(ratio)
                taken = {w: f(case, limit).seconds for w, f in ways(study).items()}
                for way in WAYS:
                    found[way].append(taken[way])
                slow = study.all_slow(case).seconds
                if setting == DEFAULT:
                    ideal = slow / study.all_fast(case).seconds
                    gains = (slow / taken[way] for way in WAYS)
                    speed.append((name, f"{ratio}:1", limit / GB, *gains, ideal))
            means = (loss(fast, found[way]) for way in WAYS)
            paper = (PAPER[w] if ratio == 4 else None for w in ("first touch", WAYS[2]))
            losses.append((setting.name, f"{ratio}:1", *means, *paper))
    return Report(
        "simulated speed at slow:fast ratios",
        "a geometric mean loss of 27.7 % against all of it in DRAM, and of 71.9 % for "
        "first-touch NUMA, at 4:1 by the authors' code; all of it in Optane takes 3 to "
        "8 times as long.",
        "kernel times are a roofline's, not measured. Arithmetic runs beside memory "
        "traffic at all times there, which hides Optane behind convolutions (VGG), and "
        "element-wise work is fused, which nGraph ran as kernels of its own. Both make "
        "Optane cheaper than it was. Kernels write to it by ordinary stores, at 2.8 "
        "GB/s (see `autotm_jax.simulate.OPTANE`), unless streaming stores, at 7.9 "
        "GB/s, are named; and where no overlap is named, arithmetic and memory wait "
        "for each other.",
        (
            Table(
                "Speed-up over all in Optane, simulated",
                ("network", "ratio", "DRAM, GB", *WAYS, "all fast"),
                tuple(speed),
            ),
            Table(
                "Geometric mean loss against all fast, percent, simulated",
                (
                    "kernels",
                    "ratio",
                    *WAYS,
                    "paper, first touch",
                    "paper, synchronous",
                ),
                tuple(losses),
            ),
            Table(
                "Seconds with all in Optane over those with all in DRAM, simulated",
                ("network", *(setting.name for setting in study.settings)),
                tuple(factors),
            ),
        ),
        lambda figure: _draw(figure, speed),
    )


def _draw(figure: Any, speed: Sequence[tuple[Any, ...]]) -> None:
    names = list(dict.fromkeys(row[0] for row in speed))
    figure.set_size_inches(3 * len(names), 3.4)
    all_axes = figure.subplots(1, len(names), squeeze=False)
    for axes, name in zip(all_axes[0], names, strict=True):
        rows = [row for row in speed if row[0] == name]
        for i, way in enumerate(WAYS):
            at = [x + 0.25 * (i - 1) for x in range(len(rows))]
            axes.bar(at, [row[3 + i] for row in rows], 0.25, label=way)
        axes.axhline(rows[0][-1], linestyle="--", color="black", label="all fast")
        axes.set_xticks(range(len(rows)), [row[1] for row in rows])
        axes.set_title(name)
    first = figure.axes[0]
    first.set_ylabel("speed-up over all in Optane\n(simulated)")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
