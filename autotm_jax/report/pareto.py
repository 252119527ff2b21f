"""Time against memory, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ReportError
from .plots import BLUE, GREY, VERMILION, figure, write_figure


if TYPE_CHECKING:
    from ..sweep import Point, Sweep


_GIB = 2**30


def plot_sweep(sweep: Sweep, path: Path | None) -> Any:
    """Seconds against device bytes: see `Sweep.plot`."""
    points = _placed(sweep.points)
    if not points:
        raise ReportError(
            "There is nothing to draw: no budget has a plan. Sweep larger budgets."
        )
    drawn, (axes,) = figure([3], "A step's time against its memory (modelled)")
    points.sort()
    sizes, times = [x for x, _, _ in points], [y for _, y, _ in points]
    axes.plot(sizes, times, color=BLUE, marker="o", label="autotm.jit")
    for size, time, name in points:
        _label(axes, size, time, name, BLUE)
    others = _placed(sweep.baselines)
    axes.scatter(
        [x for x, _, _ in others],
        [y for _, y, _ in others],
        color=VERMILION,
        marker="s",
        zorder=3,
        label="without a plan",
    )
    for size, time, name in others:
        _label(axes, size, time, name, VERMILION)
    axes.grid(color=GREY, alpha=0.25)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.15 * max([*times, *(y for _, y, _ in others)]))
    axes.set_xlabel("device memory, GiB")
    axes.set_ylabel("step, ms")
    drawn.legend(loc="outside lower center", ncols=2, frameon=False)
    return write_figure(drawn, path)


def _placed(points: Sequence[Point]) -> list[tuple[float, float, str]]:
    return [
        (p.device_bytes / _GIB, 1e3 * p.seconds, p.name)
        for p in points
        if p.device_bytes is not None and p.seconds is not None
    ]


def _label(axes: Any, size: float, time: float, name: str, color: str) -> None:
    # Those of plans below the line, the others above.
    above = color != BLUE
    axes.annotate(
        name,
        (size, time),
        xytext=(0, 7 if above else -7),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        fontsize="small",
        color=color,
    )
