"""Plans drawn by matplotlib: memory and time over the step.

Everything drawn is modelled, and the titles say so. The colours are those of Okabe and
Ito, which the colour-blind tell apart.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..budget import format_bytes
from ..errors import ReportError
from ..simulate import Lane
from ..solve import Schedule
from .course import Course, course_of
from .files import write_file
from .wording import said


if TYPE_CHECKING:
    from ..plan import Plan


# Okabe and Ito's.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, GREY = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#999999",
)

_LANES = {Lane.COMPUTE: GREEN, Lane.D2H: ORANGE, Lane.H2D: SKY}

_GIB = 2**30


def figure(rows: Sequence[float], title: str) -> tuple[Any, Sequence[Any]]:
    """A figure with charts below each other that share the horizontal axis.

    **Arguments:**

    - `rows`: the heights of the charts.
    - `title`: of the figure.

    **Returns:**

    A `matplotlib.figure.Figure` that needs no display, and its axes.

    **Raises:**

    - `ReportError`: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ReportError(
            "Plots are drawn by matplotlib, which is not installed: "
            "pip install 'autotm-jax[plots]'."
        ) from error
    found = Figure(figsize=(10, 2.2 + 1.6 * sum(rows)), layout="constrained")
    grid: Any = found.subplots(
        len(rows), 1, sharex=True, squeeze=False, height_ratios=list(rows)
    )
    found.suptitle(title)
    axes = list(grid[:, 0])
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return found, axes


def check_picture(path: Path) -> None:
    """Before anything that takes long: could a figure be drawn, and written there?

    **Raises:**

    - `ReportError`: if matplotlib is missing, or draws no such kind of picture.
    """
    empty, _ = figure([1], "")
    _kind(empty, path)


def write_figure(found: Any, path: Path | None) -> Any:
    """Writes a figure, if a path is given, and returns it.

    **Raises:**

    - `ReportError`: if that cannot be done.
    """
    if path is None:
        return found
    kind, data = _kind(found, path), io.BytesIO()
    found.savefig(data, format=kind, dpi=150)
    write_file(path, data.getvalue())
    return found


def _kind(found: Any, path: Path) -> str:
    kind = path.suffix.lstrip(".")
    if kind not in found.canvas.get_supported_filetypes():
        raise ReportError(
            f"{path} does not say what kind of picture it is to be: let it end in "
            ".png, .svg or .pdf."
        )
    return kind


def plot_plan(plan: Plan, path: Path | None) -> Any:
    """Memory and time over the step: see `Plan.plot`."""
    course, plain = course_of(plan), course_of(plan, Schedule())
    ratio = course.modelled / plain.modelled
    budget = '"min"' if plan.budget is None else format_bytes(plan.budget)
    title = (
        f"Budget {budget}: {format_bytes(plan.device_bytes or 0)} instead of "
        f"{format_bytes(max(plain.device))}, {said(course.modelled)} a step, "
        f"{ratio:.2f} x (modelled)"
    )
    drawn, (device, host, lanes) = figure((2.2, 1, 1), title)
    _memory(device, plain.begins, plain.device, GREY, "nothing moved or computed again")
    _memory(device, course.begins, course.device, BLUE, "as planned")
    if plan.budget is not None:
        device.axhline(plan.budget / _GIB, color=VERMILION, ls="--", label="budget")
    device.set_ylabel("device memory, GiB")
    _phases(device, course)
    _memory(host, course.begins, course.host, ORANGE, "on the host")
    host.set_ylabel("host, GiB")
    _lanes(lanes, course)
    lanes.set_xlabel("time, ms (simulated)")
    device.set_xlim(0, 1e3 * max(course.seconds, plain.seconds))
    drawn.legend(loc="outside lower center", ncols=5, frameon=False)
    return write_figure(drawn, path)


def _memory(
    axes: Any, begins: Sequence[float], nbytes: Sequence[int], color: str, label: str
) -> None:
    sizes = [n / _GIB for n in nbytes]
    edges = [1e3 * t for t in begins]
    axes.stairs(sizes, edges, fill=True, color=color, alpha=0.25)
    axes.stairs(sizes, edges, color=color, label=label, lw=1.2)
    axes.set_ylim(bottom=0)


def _phases(axes: Any, course: Course) -> None:
    for phase, first, end in course.phases:
        begin, until = (1e3 * course.begins[k] for k in (first, end))
        if first:
            axes.axvline(begin, color=BLACK, lw=0.8, ls=":")
        axes.annotate(
            phase.value,
            ((begin + until) / 2, 1),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
        )


def _lanes(axes: Any, course: Course) -> None:
    for row, (lane, color) in enumerate(_LANES.items()):
        spans = [s for s in course.spans if s.lane is lane]
        beside = _merged((s.begin, s.end) for s in spans if not s.waits)
        waited = [(s.begin, s.end) for s in spans if s.waits]
        for group, alpha in ((beside, 0.6), (waited, 1.0)):
            bars = [(1e3 * a, 1e3 * (b - a)) for a, b in group]
            axes.broken_barh(bars, (row - 0.35, 0.7), color=color, alpha=alpha, lw=0)
    busy = _merged((s.begin, s.end) for s in course.spans if s.lane is Lane.COMPUTE)
    edges = [0.0, *itertools.chain.from_iterable(busy), course.seconds]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    stalls = [(1e3 * a, 1e3 * (b - a)) for a, b in gaps if b > a]
    label = "stalled" if stalls else None
    axes.broken_barh(stalls, (-0.35, 0.7), color=BLACK, lw=0, label=label)
    axes.set_yticks(range(len(_LANES)), [lane.value for lane in _LANES])
    axes.invert_yaxis()


def _merged(spans: Any) -> list[tuple[float, float]]:
    # Bars that touch are drawn as one.
    out: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1] + 1e-12:
            out[-1] = out[-1][0], max(out[-1][1], end)
        else:
            out.append((begin, end))
    return out
