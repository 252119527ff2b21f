"""A network on a GPU, in all ways: plans, managed memory, vDNN, policies and others.

All times but the solver's are simulated.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

from autotm_jax.simulate import (
    Outcome,
    dots_saveable,
    engines_of,
    managed_memory,
    nothing_saveable,
    oracle,
    simulate,
    vdnn,
    xla_rematerialisation,
)
from autotm_jax.solve import PROGRAMS, Formulation, Schedule, SolverOptions

from ..workloads.autotm import NETWORKS
from .device import OnDevice, on_device
from .study import GB


MANAGED = "managed memory"

FULL = "managed at full rate"
"""The same, if faults moved pages as fast as copies do."""

PLANS = (Formulation.SYNCHRONOUS, Formulation.ASYNCHRONOUS, Formulation.JOINT)
"""AutoTM's programs for a GPU, and the one that is ours."""

FREE = ("vDNN", "nothing saveable", "dots saveable", "XLA's remat")
"""The ways that may take more: all but the last look at no limit."""

SYNC, ASYNC, JOINT = (plan.value for plan in PLANS)
ORACLE = "oracle"

WAYS = (MANAGED, FULL, *FREE, SYNC, ASYNC, JOINT, ORACLE)
"""All of them, in the order of tables."""

# Of a deep network, the asynchronous and the joint program take all of it. What they
# find then is mostly there after a few seconds: it was found without a program.
_OPTIONS = SolverOptions(time_limit=15.0)


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


def play(say: Callable[[str], None], name: str, batch: int) -> Case:
    """Poses a network, plans it and plays it.

    **Arguments:**

    - `say`: told what is being done.
    - `name`, `batch`: of `NETWORKS`.

    **Returns:**

    A `Case`.
    """
    network = NETWORKS[name]
    say(f"posing {name} at batch {batch}")
    step = on_device(network.workload(batch))
    tried = {plan: _planned(say, step, plan) for plan in PLANS}
    return Case(name, batch, step, _played(step, tried), tried)


def _played(
    step: OnDevice, tried: Mapping[Formulation, Tried]
) -> dict[str, Outcome | None]:
    problem = step.problem
    return {
        MANAGED: managed_memory(problem),
        FULL: managed_memory(problem, migration=1.0),
        "vDNN": vdnn(problem, step.convolutions, step.backward),
        "nothing saveable": nothing_saveable(problem),
        "dots saveable": dots_saveable(problem, step.contractions),
        "XLA's remat": xla_rematerialisation(problem),
        **{plan.value: found.outcome for plan, found in tried.items()},
        ORACLE: oracle(problem),
    }


def _planned(
    say: Callable[[str], None], step: OnDevice, formulation: Formulation
) -> Tried:
    is_ours = formulation is Formulation.JOINT
    problem = step.problem if is_ours else step.problem.moved_only
    engines = engines_of(problem.link, one_engine=not is_ours)
    if step.fits:
        played = simulate(problem, Schedule(), engines)
        outcome = played.outcome(formulation.value)
        return Tried(outcome, played.modelled, "fits: nothing moves")
    say(f"solving {step.name}, {formulation.value}")
    start = time.perf_counter()
    program = PROGRAMS[formulation](problem)
    build = time.perf_counter() - start
    found = program.fastest(problem.device_limit, _OPTIONS)
    status = "; ".join(filter(None, (found.status.name.lower(), found.note)))
    took = len(program.columns.edges), build, found.seconds
    if found.schedule is None:
        return Tried(None, None, status, None, *took)
    played = simulate(problem, found.schedule, engines)
    outcome = played.outcome(formulation.value)
    assert not outcome.note, outcome.note
    return Tried(outcome, played.modelled, status, found.gap, *took)
