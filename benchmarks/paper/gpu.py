"""Figure 12: CPU and GPU memory, with an RTX 2080 Ti of 11 GB, on simulated engines."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotm_jax.simulate import (
    Outcome,
    dots_saveable,
    engines_of,
    managed_memory,
    nothing_saveable,
    oracle,
    simulate,
    vdnn,
)
from autotm_jax.solve import PROGRAMS, Formulation, Schedule, SolverOptions

from ..workloads.autotm import NETWORKS
from .device import OnDevice, on_device
from .registry import experiment
from .report import Cell, Report, Table
from .study import GB, Study


MANAGED = "managed memory"

PLANS = (Formulation.SYNCHRONOUS, Formulation.ASYNCHRONOUS, Formulation.JOINT)
"""AutoTM's programs for a GPU, and the one that is ours."""

FREE = ("vDNN", "nothing saveable", "dots saveable")
"""The ways that look at no limit."""

_SYNC, _ASYNC, _JOINT = (plan.value for plan in PLANS)
_ORACLE = "oracle"

_WAYS = (MANAGED, *FREE, _SYNC, _ASYNC, _JOINT, _ORACLE)

_SECONDS = {
    Formulation.SYNCHRONOUS: 20.0,
    Formulation.ASYNCHRONOUS: 60.0,
    Formulation.JOINT: 20.0,
}
"""Time limits of the solver. The asynchronous program is the largest by far."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """A plan that was looked for.

    - `outcome`: the simulated step; `None` if there is no plan.
    - `modelled`: seconds of the step as the program has them.
    - `status`, `gap`: what the solver says.
    - `columns`, `build`, `seconds`: how large the program is, and how long it took to
        write down and to solve.
    """

    outcome: Outcome | None
    modelled: float | None
    status: str
    gap: float | None = None
    columns: int = 0
    build: float = 0.0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A network at a batch, run in all ways.

    - `network`, `batch`: which.
    - `step`: as posed.
    - `found`: the simulated steps by way; `None` if there is no plan.
    - `tried`: how the plans were found.
    """

    network: str
    batch: int
    step: OnDevice
    found: Mapping[str, Outcome | None]
    tried: Mapping[Formulation, Tried]

    @property
    def label(self) -> tuple[str, int]:
        """What rows of tables begin with."""
        return self.network, self.batch

    def seconds(self, way: str) -> float | None:
        """Of the step."""
        found = self.found[way]
        return None if found is None else found.seconds

    def gain(self, way: str) -> float | None:
        """Speed-up over managed memory; `None` if the way keeps no limit."""
        found, managed = self.found[way], self.found[MANAGED]
        if found is None or managed is None or (found.note and way in FREE):
            return None
        return managed.seconds / found.seconds

    def moved(self, way: str) -> float | None:
        """GB copied in both directions."""
        found = self.found[way]
        return None if found is None else (found.out + found.into) / GB


def _is_below(way: str, other: str, times: float = 1.0) -> Callable[[Case], bool]:
    def holds(case: Case) -> bool:
        first, second = case.seconds(way), case.seconds(other)
        return first is not None and second is not None and first < times * second

    return holds


BARS = (
    ("asynchronous is faster than synchronous", _is_below(_ASYNC, _SYNC)),
    ("synchronous is faster than managed memory", _is_below(_SYNC, MANAGED)),
    ("asynchronous is faster than managed memory", _is_below(_ASYNC, MANAGED)),
    ("joint is as fast as asynchronous, to 1 %", _is_below(_JOINT, _ASYNC, 1.01)),
)
"""What may be said of each case in which something has to move."""


@experiment("gpu")
def gpu(study: Study) -> Report:
    """Every network at the paper's batches for a GPU."""
    names = ("vgg-19",) if study.quick else tuple(NETWORKS)
    cases = [
        _case(study, name, batch) for name in names for batch in NETWORKS[name].gpu
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
        "memory is told when a value is dead. vDNN and the policies of jax.checkpoint "
        "look at no limit: where they take more, they have no speed-up.",
        tables(cases),
        lambda figure: _draw(figure, cases),
    )


def _case(study: Study, name: str, batch: int) -> Case:
    network = NETWORKS[name]
    study.say(f"posing {name} at batch {batch}")
    step = on_device(network.workload(batch))
    tried = {plan: _planned(study, step, plan) for plan in PLANS}
    return Case(name, batch, step, _played(step, tried), tried)


def _played(
    step: OnDevice, tried: Mapping[Formulation, Tried]
) -> dict[str, Outcome | None]:
    problem = step.problem
    return {
        MANAGED: managed_memory(problem),
        "vDNN": vdnn(problem, step.convolutions, step.backward),
        "nothing saveable": nothing_saveable(problem),
        "dots saveable": dots_saveable(problem, step.contractions),
        **{plan.value: found.outcome for plan, found in tried.items()},
        _ORACLE: oracle(problem),
    }


def _planned(study: Study, step: OnDevice, formulation: Formulation) -> Tried:
    is_ours = formulation is Formulation.JOINT
    problem = step.problem if is_ours else step.moved_only
    engines = engines_of(problem.link, one_engine=not is_ours)
    if step.fits:
        played = simulate(problem, Schedule(), engines)
        outcome = played.outcome(formulation.value)
        return Tried(outcome, played.modelled, "fits: nothing moves")
    study.say(f"solving {step.name}, {formulation.value}")
    start = time.perf_counter()
    program = PROGRAMS[formulation](problem)
    build = time.perf_counter() - start
    options = SolverOptions(time_limit=_SECONDS[formulation])
    found = program.fastest(problem.device_limit, options)
    status = "; ".join(filter(None, (found.status.name.lower(), found.note)))
    took = len(program.columns.edges), build, found.seconds
    if found.schedule is None:
        return Tried(None, None, status, None, *took)
    played = simulate(problem, found.schedule, engines)
    outcome = played.outcome(formulation.value)
    assert not outcome.note, outcome.note
    return Tried(outcome, played.modelled, status, found.gap, *took)


def tables(cases: Sequence[Case]) -> tuple[Table, ...]:
    """All that is told of the cases."""
    return (
        held(cases),
        Table(
            "Seconds per step, simulated",
            ("network", "batch", "values, GB", "limit, GB", "fits", *_WAYS),
            tuple(
                (
                    *case.label,
                    case.step.peak / GB,
                    case.step.problem.device_limit / GB,
                    "yes" if case.step.fits else "no",
                    *map(case.seconds, _WAYS),
                )
                for case in cases
            ),
        ),
        Table(
            "Speed-up over managed memory, simulated",
            ("network", "batch", *_WAYS[1:]),
            tuple((*case.label, *map(case.gain, _WAYS[1:])) for case in cases),
        ),
        Table(
            "GB moved both ways, simulated",
            ("network", "batch", *_MOVING),
            tuple((*case.label, *map(case.moved, _MOVING)) for case in cases),
        ),
        _unlimited(cases),
        _solves(cases),
    )


_MOVING = (MANAGED, "vDNN", _SYNC, _ASYNC, _JOINT)


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
        "GB that ways without a limit take, simulated",
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
    figure.set_size_inches(9, 4)
    axes = figure.subplots()
    for i, way in enumerate((_SYNC, _ASYNC, _JOINT, _ORACLE)):
        at = [x + 0.2 * (i - 1.5) for x in range(len(cases))]
        axes.bar(at, [case.gain(way) or 0.0 for case in cases], 0.2, label=way)
    axes.axhline(1.0, color="black", linewidth=0.8)
    labels = [f"{case.network}\n{case.batch}" for case in cases]
    axes.set_xticks(range(len(cases)), labels, fontsize=7)
    axes.set_ylabel("speed-up over managed memory (simulated)")
    axes.legend()
