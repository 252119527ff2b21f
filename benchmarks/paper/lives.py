"""The picture of what a synchronous plan does: the lives of tensors over a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autotm_jax.trace import backward_segments

from .fates import Fate, Way
from .posing import Posed
from .study import GB


_COLOURS = {Way.STAYS: "#4477aa", Way.COPIED: "#ee8833", Way.BORN: "#aa3377"}

_PALE = 0.4


def draw_lives(axes: Any, case: Posed, found: Sequence[Fate]) -> None:
    """Draws a bar for each tensor, as high as it is large, while it is alive.

    **Arguments:**

    - `axes`: what matplotlib draws on.
    - `case`: the step.
    - `found`: what becomes of its tensors.
    """
    seconds = np.asarray(case.problem.compute)
    begins = 100 * np.concatenate([[0.0], np.cumsum(seconds)]) / seconds.sum()
    top = 0.0
    for fate in sorted(found, key=lambda fate: (fate.touches[0], -fate.nbytes)):
        height = fate.nbytes / GB
        first, end = fate.here
        gone = begins[end], begins[fate.touches[-1] + 1]
        style = {"color": _COLOURS[fate.way], "linewidth": 0}
        span = begins[first], begins[end] - begins[first]
        axes.broken_barh([span], (top, height), **style)
        if fate.is_away:
            span = gone[0], gone[1] - gone[0]
            axes.broken_barh([span], (top, height), alpha=_PALE, **style)
        top += height
    for way, colour in _COLOURS.items():
        axes.bar(0, 0, color=colour, label=way.value)
    axes.bar(0, 0, color="grey", alpha=_PALE, label="pale: while in Optane")
    axes.axvline(
        begins[backward_segments(case.program)[0]],
        color="black",
        linestyle="--",
        linewidth=0.8,
    )
    axes.set_xlim(0, 100)
    axes.set_ylim(top, 0)
    axes.set_xlabel("percent of the step (simulated); dashed: the backward pass begins")
    axes.set_ylabel("tensors in the order in which they are made, GB")
    axes.legend(loc="lower left", fontsize=8)


def draw_parts(
    axes: Any, spans: Sequence[str], parts: Mapping[str, Sequence[float | None]]
) -> None:
    """Draws bars by group, one for each network.

    **Arguments:**

    - `axes`: what matplotlib draws on.
    - `spans`: the groups.
    - `parts`: percent by network and group; `None` if there is nothing in it.
    """
    width = 0.8 / len(parts)
    for i, (name, found) in enumerate(parts.items()):
        at = [x + width * (i - (len(parts) - 1) / 2) for x in range(len(found))]
        axes.bar(at, [part or 0.0 for part in found], width, label=name)
    axes.set_xticks(range(len(spans)), spans, fontsize=8)
    axes.set_ylim(0, 135)  # a legend's place
    axes.legend(loc="upper center", ncols=2, fontsize=7)
