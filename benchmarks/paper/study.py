"""What experiments share: networks that have been posed, and plans that were solved."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable

from autotm_jax.simulate import (
    OPTANE,
    STREAMING_STORES,
    Memories,
    Outcome,
    all_fast,
    all_slow,
    first_touch,
    memory_mode,
    planned,
)
from autotm_jax.solve import (
    PROGRAMS,
    BooleanProgram,
    Formulation,
    Schedule,
    SolverOptions,
)

from ..workloads.autotm import NETWORKS
from .posing import Posed, posed
from .sharing import Shared


GB = 1e9

CONVENTIONAL = ("vgg-19", "inception-v4", "resnet-200", "densenet-264")
"""The networks of the paper's experiments that fit a socket's DRAM."""

LARGE = {
    "inception-v4": 185 * GB,
    "resnet-200": 185 * GB,
    "densenet-264": 185 * GB,
    "vgg-416": 175 * GB,
}
"""The networks of the paper's large experiments, with the bytes of DRAM there."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is assumed of kernels.

    - `name`: what tables call it.
    - `memories`: what they reach.
    - `overlaps`: whether arithmetic runs beside memory traffic.
    """

    name: str
    memories: Memories
    overlaps: bool = True


DEFAULT = Setting("ordinary stores", OPTANE)

SETTINGS = (
    DEFAULT,
    Setting("streaming stores", STREAMING_STORES),
    Setting("ordinary stores, no overlap", OPTANE, False),
)
"""What is not known for sure, and what else it could be."""

_OPTIONS = SolverOptions(time_limit=20.0)


@dataclasses.dataclass(frozen=True)
class Solved:
    """A plan that was asked for, and what it comes to.

    - `network`, `formulation`, `limit`: which program, and bytes of fast memory.
    - `columns`: how large the program is.
    - `build`, `seconds`: to write it down, once for all limits, and to solve it.
    - `status`, `gap`: what the solver says.
    - `outcome`: the simulated step.
    - `schedule`: the plan.
    """

    network: str
    formulation: Formulation
    limit: float
    columns: int
    build: float
    seconds: float
    status: str
    gap: float
    outcome: Outcome
    schedule: Schedule


class Study:
    """A run of experiments.

    **Arguments:**

    - `quick`: whether the small form is wanted, of fewer networks and cases.
    - `say`: told what is being done.
    """

    def __init__(self, quick: bool = False, say: Callable[[str], None] = print):
        self.quick = quick
        self.say = say
        # Rows of tables that are made in other processes, by the name of an experiment.
        self.shared: dict[str, Shared] = {}
        self.settings_of: dict[Posed, Setting] = {}
        self.solved: dict[tuple[Posed, Formulation, float], Solved] = {}

    def close(self) -> None:
        """Ends what still runs in other processes."""
        for shared in self.shared.values():
            shared.close()

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What to assume of kernels."""
        return SETTINGS[:2] if self.quick else SETTINGS

    @property
    def conventional(self) -> tuple[str, ...]:
        """The networks at batches for a socket's DRAM."""
        return CONVENTIONAL[:2] if self.quick else CONVENTIONAL

    @property
    def large(self) -> dict[str, float]:
        """The networks at large batches, with bytes of fast memory."""
        names = list(LARGE)[: 1 if self.quick else None]
        return {name: LARGE[name] for name in names}

    def posed(
        self, name: str, large: bool = False, setting: Setting = DEFAULT
    ) -> Posed:
        """A network's problem at the paper's batch."""
        return self._posed(name, large, setting)

    @functools.cache  # noqa: B019 - a study lives as long as the command
    def _posed(self, name: str, large: bool, setting: Setting) -> Posed:
        if setting == DEFAULT:
            network = NETWORKS[name]
            batch = network.large if large else network.conventional
            assert batch is not None
            self.say(f"posing {name} at batch {batch}")
            found = posed(network.workload(batch), setting.memories)
        else:
            found = self._posed(name, large, DEFAULT).on(setting.memories)
            found = found if setting.overlaps else found.without_overlap()
        self.settings_of[found] = setting
        return found

    @functools.cache  # noqa: B019
    def _program(
        self, case: Posed, formulation: Formulation
    ) -> tuple[BooleanProgram, float]:
        start = time.perf_counter()
        program = PROGRAMS[formulation](case.problem)
        return program, time.perf_counter() - start

    def plan(self, case: Posed, formulation: Formulation, limit: float) -> Solved:
        """A program's plan within a limit of fast memory."""
        key = case, formulation, limit
        if key not in self.solved:
            self.solved[key] = self._solve(case, formulation, limit)
        return self.solved[key]

    def _solve(self, case: Posed, formulation: Formulation, limit: float) -> Solved:
        self.say(f"solving {case.name}, {formulation.value}, {limit / GB:.0f} GB")
        program, build = self._program(case, formulation)
        found = program.fastest(limit, _OPTIONS)
        assert found.schedule is not None, (case.name, formulation, limit, found)
        problem = case.within(limit)
        step = problem, case.kernels, case.memories
        outcome = planned(formulation.value, *step, found.schedule)
        assert not outcome.note, outcome.note
        return Solved(
            case.name,
            formulation,
            limit,
            len(program.columns.edges),
            build,
            found.seconds,
            found.status.name.lower(),
            found.gap,
            outcome,
            found.schedule,
        )

    def static(self, case: Posed, limit: float) -> Outcome:
        """AutoTM's static program."""
        return self.plan(case, Formulation.STATIC, limit).outcome

    def synchronous(self, case: Posed, limit: float) -> Outcome:
        """AutoTM's synchronous program."""
        return self.plan(case, Formulation.SYNCHRONOUS, limit).outcome

    def first_touch(self, case: Posed, limit: float) -> Outcome:
        """The NUMA policy."""
        return first_touch(case.problem, case.kernels, case.memories, int(limit))

    def memory_mode(self, case: Posed, limit: float) -> Outcome:
        """2LM."""
        return memory_mode(case.problem, case.kernels, case.memories, int(limit))

    def all_fast(self, case: Posed) -> Outcome:
        """Everything in DRAM."""
        return all_fast(case.problem, case.kernels, case.memories)

    def all_slow(self, case: Posed) -> Outcome:
        """Everything in Optane."""
        return all_slow(case.problem, case.kernels, case.memories)
