"""Figure 12: CPU and GPU memory, with an RTX 2080 Ti of 11 GB, on simulated engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..workloads.autotm import NETWORKS
from .registry import experiment
from .report import Cell, Report, Table
from .study import GB, Study
from .ways import (
    ASYNC,
    FREE,
    FULL,
    JOINT,
    MANAGED,
    ORACLE,
    SYNC,
    WAYS,
    Case,
    play,
)


def _is_below(way: str, other: str, times: float = 1.0) -> Callable[[Case], bool]:
    def holds(case: Case) -> bool:
        first, second = case.seconds(way), case.seconds(other)
        return first is not None and second is not None and first < times * second

    return holds


def _beats_free(case: Case) -> bool:
    ours = case.gain(JOINT)
    others = [gain for way in FREE if (gain := case.gain(way)) is not None]
    return ours is not None and 1.01 * ours >= max(others, default=0.0)


BARS = (
    ("asynchronous is faster than synchronous", _is_below(ASYNC, SYNC)),
    ("synchronous is faster than managed memory", _is_below(SYNC, MANAGED)),
    ("asynchronous is faster than managed memory", _is_below(ASYNC, MANAGED)),
    ("synchronous is faster than managed at full rate", _is_below(SYNC, FULL)),
    ("asynchronous is faster than managed at full rate", _is_below(ASYNC, FULL)),
    ("joint is as fast as asynchronous, to 1 %", _is_below(JOINT, ASYNC, 1.01)),
    ("joint is as fast as what keeps the limit otherwise, to 1 %", _beats_free),
)
"""What may be said of each case in which something has to move."""

_MOVING = (MANAGED, "vDNN", SYNC, ASYNC, JOINT)


@experiment("gpu")
def gpu(study: Study) -> Report:
    """Every network at the paper's batches for a GPU."""
    names = ("vgg-19",) if study.quick else tuple(NETWORKS)
    cases = [
        play(study.say, name, batch) for name in names for batch in NETWORKS[name].gpu
    ]
    return Report(
        "simulated speed on a described RTX 2080 Ti with 11 GB",
        "synchronous and asynchronous plans against cudaMallocManaged and an oracle, "
        "in 11 cases; its figures were not read.",
        "everything is simulated. AutoTM picks algorithms of cuDNN with a workspace "
        "each; here a convolution has one time, a roofline's. What is limited is live "
        "bytes, with the overhead of 0.8 GB, arguments and results off the 11 GB; "
        "results take the place of donated arguments, where AutoTM has two of each "
        "weight. Its plans are played with one engine for both directions, as there; "
        "the joint program's, which also computes again, with one for each. Managed "
        "memory is told when a value is dead; faults move pages at 0.48 of the rate of "
        "copies, as reported for a GTX 1080 (see `autotm_jax.simulate.managed`), or at "
        "all of it. vDNN and the "
        "policies of jax.checkpoint look at no limit, and XLA's own rematerialisation "
        "goes on where it cannot keep it: where they take more, they have no speed-up.",
        tables(cases),
        lambda figure: _draw(figure, cases),
    )


def tables(cases: Sequence[Case]) -> tuple[Table, ...]:
    """All that is told of the cases."""
    return (
        held(cases),
        Table(
            "Seconds per step, simulated",
            ("network", "batch", "values, GB", "limit, GB", "fits", *WAYS),
            tuple(
                (
                    *case.label,
                    case.step.peak / GB,
                    case.step.problem.device_limit / GB,
                    "yes" if case.step.fits else "no",
                    *map(case.seconds, WAYS),
                )
                for case in cases
            ),
        ),
        Table(
            "Speed-up over managed memory, simulated",
            ("network", "batch", *WAYS[1:]),
            tuple((*case.label, *map(case.gain, WAYS[1:])) for case in cases),
        ),
        Table(
            "GB moved both ways, simulated",
            ("network", "batch", *_MOVING),
            tuple((*case.label, *map(case.moved, _MOVING)) for case in cases),
        ),
        _unlimited(cases),
        _solves(cases),
    )


def held(cases: Sequence[Case]) -> Table:
    """Which claims hold where something has to move, and where they do not."""
    tight = [case for case in cases if not case.step.fits]
    rows: list[tuple[Cell, ...]] = []
    for claim, holds in BARS:
        broken = [case for case in tight if not holds(case)]
        where = ", ".join(f"{case.network} at {case.batch}" for case in broken)
        kept = len(tight) - len(broken)
        said = "no" if broken else "yes"
        rows.append((claim, said, kept, len(tight), where or "-"))
    return Table(
        "What holds where something has to move, simulated",
        ("claim", "holds", "in", "of cases", "not for"),
        tuple(rows),
    )


def _unlimited(cases: Sequence[Case]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for case in cases:
        outcomes = [case.found[way] for way in FREE]
        needs = [None if o is None else o.fast_bytes / GB for o in outcomes]
        over = [way for way, o in zip(FREE, outcomes, strict=True) if o and o.note]
        limit = case.step.problem.device_limit / GB
        rows.append((*case.label, limit, *needs, ", ".join(over) or "-"))
    return Table(
        "GB that ways take which may take more, simulated",
        ("network", "batch", "limit, GB", *FREE, "over the limit"),
        tuple(rows),
    )


def _solves(cases: Sequence[Case]) -> Table:
    rows = tuple(
        (
            *case.label,
            plan.value,
            found.status,
            None if found.gap is None else 100 * found.gap,
            found.columns,
            found.build,
            found.seconds,
            found.modelled,
            case.seconds(plan.value),
        )
        for case in cases
        for plan, found in case.tried.items()
    )
    return Table(
        "How plans were found, and their seconds as modelled and as simulated",
        (
            "network",
            "batch",
            "program",
            "status",
            "gap, percent",
            "columns",
            "build, s",
            "solve, s",
            "modelled, s",
            "simulated, s",
        ),
        rows,
    )


def _draw(figure: Any, cases: Sequence[Case]) -> None:
    figure.set_size_inches(11, 4)
    axes = figure.subplots()
    for i, way in enumerate((SYNC, ASYNC, JOINT, ORACLE)):
        at = [x + 0.2 * (i - 1.5) for x in range(len(cases))]
        axes.bar(at, [case.gain(way) or 0.0 for case in cases], 0.2, label=way)
    axes.axhline(1.0, color="black", linewidth=0.8)
    labels = [f"{case.network}\n{case.batch}" for case in cases]
    axes.set_xticks(range(len(cases)), labels, fontsize=7)
    axes.set_ylabel("speed-up over managed memory (simulated)")
    axes.legend()
