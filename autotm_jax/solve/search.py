"""The search for a boolean solution near a program's linear relaxation.

The relaxation is solved first: it is fast, and its optimum is the bound that gaps are
measured from. It is nearly integral, so boolean solutions are looked for near it: with
boolean programs that leave only what the relaxation splits, or only the columns that
cost nothing there, then by a local search that starts from the relaxation rounded to
whole tensors. Only if the gap is still too large is the whole boolean program solved.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cvxpy as cp
import numpy as np

from .checker import replay
from .improve import anneal
from .model import INFEASIBLE, MIB, MS, Answer, Model
from .schedule import Schedule
from .solution import Solution, SolverOptions, Status


if TYPE_CHECKING:
    from .program import BooleanProgram


# A column whose reduced cost exceeds this part of the objective is left out of the
# first boolean programs.
_CHEAP_COLUMN = 2e-4

# Seconds that an annealing gets at least.
_ANNEAL_SECONDS = 3.0

# With more split tensors than this fraction, the program of those is no small one.
_MANY_SPLIT = 0.15

# Seconds for a program near the relaxation, and the relative MIP gap at which it is
# left: where it takes longer there is nothing to be found.
_NEARBY_SECONDS = 3.0
_GAP_NEARBY = 5e-3


class Search:
    """One search: the fastest plan within a limit, or the one with the least memory.

    **Arguments:**

    - `program`: what is solved.
    - `limit`: device bytes of temporaries; `None` to look for the least.
    - `options`: what the solver may take.
    """

    def __init__(
        self, program: BooleanProgram, limit: float | None, options: SolverOptions
    ):
        self.program, self.limit, self.options = program, limit, options
        self.columns, self.relaxed = program.columns, program.relaxed
        self.start = time.perf_counter()
        self.unit = 1 / MS if limit is not None else MIB
        self.best: Answer | None = None
        self.bound = -float("inf")

    @property
    def boolean(self) -> Model:
        """The boolean program, built when it is first needed."""
        return self.program.boolean

    def run(self) -> Solution:
        """The best that is found in the time."""
        relaxed = self._solved(
            self.relaxed, self._aim(self.relaxed), self._left(), self.options.gap
        )
        if relaxed is INFEASIBLE:
            return self._solution(Status.INFEASIBLE)
        if relaxed is not None:
            self.bound = relaxed.bound
            for found in self._attempts(relaxed):
                self._consider(found)
                if self._is_good() or (self.best and self._left() < 1.0):
                    break
        if not self._is_good() and (self.best is None or self._left() >= 1.0):
            aim = self._aim(self.boolean)
            every = self._solved(self.boolean, aim, self._left(), self.options.gap)
            if every is INFEASIBLE and self.best is None:
                return self._solution(Status.INFEASIBLE)
            if every is not None and every is not INFEASIBLE:
                self.bound = max(self.bound, every.bound)
                self._consider(every)
        return self._solution(Status.OPTIMAL if self._is_good() else Status.TIME_LIMIT)

    def _aim(self, model: Model) -> cp.Problem:
        if self.limit is None:
            return model.least_memory()
        return model.fastest(self.limit)

    def _solved(
        self, model: Model, program: cp.Problem, seconds: float, gap: float
    ) -> Answer | None:
        return model.run(program, seconds, gap, self.options.threads)

    def _left(self) -> float:
        taken = time.perf_counter() - self.start
        return max(0.5, self.options.time_limit - taken)

    def _consider(self, found: Answer | None) -> None:
        if found is None or found is INFEASIBLE:
            return
        if self.best is None or found.objective < self.best.objective:
            self.best = found

    def _is_good(self) -> bool:
        if self.best is None:
            return False
        allowed = self.options.gap * abs(self.best.objective) + 1e-9
        return self.best.objective - self.bound <= allowed

    def _solution(self, status: Status) -> Solution:
        taken = time.perf_counter() - self.start
        bound = self.bound * self.unit
        if self.best is None:
            return Solution(status, None, float("inf"), bound, taken)
        schedule = self.best.schedule
        if schedule is None:
            schedule = self._decoded(self.best.x, self.best)
        objective = self.best.objective * self.unit
        return Solution(status, schedule, objective, min(bound, objective), taken)

    def _decoded(self, x: np.ndarray, answer: Answer) -> Schedule:
        return dataclasses.replace(self.columns.decode(x), picks=answer.picks)

    def _attempts(self, relaxed: Answer) -> Iterator[Answer | None]:
        """Boolean solutions near the relaxation, the cheapest to find first."""
        x = self.boolean.x
        broken = self._split_tensors(relaxed.x)
        fixed = np.flatnonzero(~broken[self.columns.owner])
        costly = relaxed.reduced_costs > _CHEAP_COLUMN * abs(relaxed.objective)
        out = np.flatnonzero(costly & (relaxed.x < 1e-9))
        # Only what is split; and whatever costs nothing where the relaxation is.
        nearby = [x[fixed] == np.round(relaxed.x[fixed]), x[out] == 0]
        first, second = nearby[::-1] if broken.mean() > _MANY_SPLIT else nearby
        yield self._restricted([first], _NEARBY_SECONDS)
        is_rough = broken.mean() > _MANY_SPLIT
        if self.limit is not None and is_rough and self.program.allows_everything:
            yield self._annealed(relaxed, self.limit)
        yield self._restricted([second], _NEARBY_SECONDS)

    def _restricted(self, rows: list[Any], seconds: float) -> Answer | None:
        program = self._aim(self.boolean)
        program = cp.Problem(program.objective, [*program.constraints, *rows])
        return self._solved(self.boolean, program, seconds, _GAP_NEARBY)

    def _annealed(self, relaxed: Answer, limit: float) -> Answer | None:
        # From every tensor's main path; outside of the network, so with finer windows.
        problem = dataclasses.replace(self.program.problem, device_limit=limit)
        rounded = np.zeros(len(self.columns.edges))
        for tensor in range(len(problem.tensors)):
            rounded[self.columns.main_path(tensor, relaxed.x)] = 1.0
        start = self._decoded(rounded, relaxed)
        schedule = anneal(problem, start, max(_ANNEAL_SECONDS, self._left() / 2))
        if schedule is None:
            return None
        objective = replay(problem, schedule).makespan * MS
        return Answer(rounded, (), objective, self.bound, rounded, schedule)

    def _split_tensors(self, x: np.ndarray) -> np.ndarray:
        split = np.abs(x - np.round(x)) > 1e-6
        broken = np.zeros(len(self.program.problem.tensors), dtype=bool)
        broken[self.columns.owner[split]] = True
        return broken
