"""The search for a boolean solution near a program's linear relaxation.

The relaxation is solved first: it is fast, and its optimum is the bound that gaps are
measured from. It is nearly integral, so boolean solutions are looked for near it: with
boolean programs that leave only what the relaxation splits, or only the columns that
cost nothing there, or little, and by local searches that start from simple policies and
from the relaxation rounded to whole tensors. Only if the gap is still too large is the
whole boolean program solved, and then for what beats the best so far by more than the
gap: a column whose reduced cost is too much for that is left out (reduced-cost fixing),
and if there is nothing, that is the proof.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from .checker import replay
from .deadline import Deadline
from .improve import anneal, descend
from .model import ANYTHING, INFEASIBLE, MIB, MS, Answer, Model
from .policies import best_policy
from .schedule import Schedule
from .solution import Solution, SolverOptions, Status
from .worker import solver_name


if TYPE_CHECKING:
    from .program import BooleanProgram


# The part of the time for the relaxation. Where it takes longer, the simple policies
# get the rest.
_RELAXED = 0.8

# Where there is a plan, nothing more is begun with less than so many seconds, or with
# less than this part of the time limit.
_WORTH_SECONDS = 1.0
_WORTH = 0.1

# Columns whose reduced cost exceeds such a part of the objective are left out of the
# next boolean program, and the part of the time that is left which it may take, and how
# many seconds at most: most often there is next to nothing to decide so near to the
# relaxation.
_NEAREST = (1e-6, 0.2)
_NEAREST_SECONDS = 2.0

# The same, as parts of the objective per tensor: enough columns for a good plan, and
# few enough to find it among them; and more, if there is none.
_NEAR = (0.2, 0.8)
_FAR = (2.0, 0.8)

# The part of the time for the program in which layers are decided together.
_TIED = 0.5

# Layers are decided together where that leaves this part of the decisions, or less.
_ALIKE = 0.6
_ALIKE_NEAR = 2e-4

# A program that leaves only what the relaxation splits is small if no more tensors are
# split than this fraction.
_FEW_SPLIT = 0.15

# The part of the time that is left for the simple policies, and for a descent from the
# best of them.
_SIMPLE = 0.5

# Seconds for that.
_SPLIT_SECONDS = 3.0

# The part of the time that is left for an annealing (the descents that follow take half
# as long again), and the seconds with which it is not worth beginning.
_ANNEAL = 0.5
_ANNEAL_SECONDS = 2.0

# The whole program is tried early if the best is within so many times the gap.
_PROVABLE = 5.0

# The part of the time that is left which it may take then.
_PROOF = 0.5

# So few more columns, as a part of those of a program that was solved, take no longer.
_FEW_MORE = 0.02

# So that what is proved is the gap, and not a little more.
_ROUNDING = 1e-6

# Reduced costs are exact to so much, in milliseconds or MiB.
_EXACT = 1e-6

# The relative MIP gap at which programs near the relaxation are left, as a part of the
# one that is wanted: where that takes longer there is nothing to be found.
_GAP_NEARBY = 0.5


class Search:
    """One search: the fastest plan within a limit, or the one with the least memory.

    **Arguments:**

    - `program`: what is solved.
    - `limit`: device bytes of temporaries; `None` to look for the least.
    - `options`: what the solver may take.
    - `deadline`: of its time limit, if that has already begun.
    - `start`: a plan within the limit, if one is known.
    """

    def __init__(
        self,
        program: BooleanProgram,
        limit: float | None,
        options: SolverOptions,
        deadline: Deadline | None = None,
        start: Schedule | None = None,
    ):
        self.program, self.limit, self.options = program, limit, options
        self.start = start
        self.columns, self.relaxed = program.columns, program.relaxed
        self.deadline = deadline or Deadline(options.time_limit)
        self.unit = 1 / MS if limit is not None else MIB
        self.best: Answer | None = None
        # Columns of the largest program that was solved, near the relaxation.
        self.solved = 0
        problem = program.problem
        least = problem.floor() if limit is None else problem.fastest()
        self.bound = least / self.unit

    @property
    def boolean(self) -> Model:
        """The boolean program, built when it is first needed."""
        return self.program.boolean

    def run(self) -> Solution:
        """The best that is found in the time."""
        relaxed = self.relaxed.run(self.limit, self._within(_RELAXED))
        if relaxed is INFEASIBLE:
            return self._solution(Status.INFEASIBLE)
        if relaxed is not None:
            self.bound = max(self.bound, relaxed.bound)
        if self.start is not None and self.limit is not None:
            self._consider(self._told(self.limit, self.start))
        for found in self._attempts(relaxed):
            self._consider(found)
            if self._is_over():
                break
        if not self._is_over():
            every = self._whole(relaxed, 1.0)
            if every is INFEASIBLE and self.best is None:
                return self._solution(Status.INFEASIBLE)
            self._consider(every)
        if self._is_good():
            return self._solution(Status.OPTIMAL)
        if self.best is None or self.best.schedule is None:
            return self._solution(Status.TIME_LIMIT)
        return self._solution(Status.POLICY if self.best.policy else Status.ROUNDED)

    def _within(self, part: float, gap: float = 1.0) -> SolverOptions:
        """Options with a part of the time that is left, and of the gap."""
        seconds, gap = part * self.deadline.left(), gap * self.options.gap
        return dataclasses.replace(self.options, time_limit=seconds, gap=gap)

    def _is_over(self) -> bool:
        worth = 0.0
        if self.best is not None:
            worth = min(_WORTH_SECONDS, _WORTH * self.options.time_limit)
        return self._is_good() or self.deadline.left() <= worth

    def _consider(self, found: Answer | None) -> None:
        if found is None or found is INFEASIBLE:
            return
        if self.best is None or found.objective < self.best.objective:
            self.best = found

    def _is_good(self, times: float = 1.0) -> bool:
        """Whether the best is within so many times the gap."""
        if self.best is None:
            return False
        allowed = times * self.options.gap * abs(self.best.objective) + 1e-9
        return self.best.objective - self.bound <= allowed

    def _solution(self, status: Status) -> Solution:
        taken = self.deadline.taken()
        bound = self.bound * self.unit
        if self.best is None:
            figures, note = (float("inf"), bound, taken), self._failure()
            return Solution(status, None, *figures, note, solver_name())
        schedule = self.best.schedule
        if schedule is None:
            schedule = self.program.decoded(self.best.x, self.best.picks)
        objective = self.best.objective * self.unit
        notes = [self.best.policy]
        if status is not Status.OPTIMAL:
            notes.append(self._failure())
        note = "; ".join(filter(None, notes))
        figures = objective, min(bound, objective), taken
        return Solution(status, schedule, *figures, note, solver_name())

    def _failure(self) -> str:
        models = [self.relaxed, *self.program.built()]
        failures = [m.failure for m in models if m.failure]
        return f"HiGHS failed: {failures[0]}" if failures else ""

    def _attempts(self, relaxed: Answer | None) -> Iterator[Answer | None]:
        """Boolean solutions near the relaxation, the cheapest to find first."""
        is_free = self.limit is not None and self.program.allows_everything
        if relaxed is None:
            if is_free:
                yield from self._simple(self.limit or 0.0)
            return
        broken, sparse = self._split_tensors(relaxed.x), self.program.sparse
        if broken.sum() <= _FEW_SPLIT * broken.size:
            # Only what is split.
            upper = (relaxed.x > 0.5) | broken[self.columns.owner]
            yield self._restricted(sparse, upper, 1.0, _SPLIT_SECONDS)
        cheap, part = _NEAREST
        upper = self._cheap(relaxed, cheap)
        yield self._restricted(sparse, upper, part, _NEAREST_SECONDS)
        near, best = self._near_and_simple(relaxed, is_free)
        yield best
        if near is INFEASIBLE:
            if is_free:
                yield self._annealed(relaxed, self.limit or 0.0)
            yield self._near(relaxed, _FAR)
        if self._is_good(_PROVABLE):
            yield self._whole(relaxed, _PROOF)
        tie = self.program.tie
        columns, decisions = map(int, tie.shape)  # pyright: ignore[reportArgumentType]
        if decisions <= _ALIKE * columns:
            # What is cheap for one of a group is allowed to all.
            upper = tie @ (tie.T @ self._cheap(relaxed, _ALIKE_NEAR)) > 0
            options = self._within(_TIED, _GAP_NEARBY)
            below = self._worth_finding()
            yield self.program.alike.run(self.limit, options, upper, below)
        if is_free and near is not INFEASIBLE:
            yield self._annealed(relaxed, self.limit or 0.0)

    def _worth_finding(self) -> float:
        """What a plan has to be below to beat the best by more than the gap."""
        if self.best is None:
            return ANYTHING
        gap = self.options.gap * (1 - _ROUNDING)
        return self.best.objective - gap * abs(self.best.objective)

    def _whole(self, relaxed: Answer | None, part: float) -> Answer | None:
        """What is worth finding, anywhere; otherwise the bound rises to it."""
        below, upper = self._worth_finding(), None
        cutoff = below
        if relaxed is not None and self.best is not None:
            upper = relaxed.reduced_costs <= below - relaxed.objective + _EXACT
            if upper.sum() <= (1 + _FEW_MORE) * self.solved:
                cutoff = ANYTHING  # a proof that there is nothing may be harder
        every = self.boolean.run(self.limit, self._within(part), upper, cutoff)
        if every is INFEASIBLE and self.best is not None:
            self.bound = max(self.bound, below)
        elif every is not None:
            self.bound = max(self.bound, min(every.bound, below))
        return every

    def _near_and_simple(
        self, relaxed: Answer, is_free: bool
    ) -> tuple[Answer | None, Answer | None]:
        """What is found near the relaxation, and the best of that and simple policies.

        HiGHS runs in a process of its own, so that neither takes the other's time.
        """
        found: list[Answer | None] = []
        with ThreadPoolExecutor(1) as pool:
            solving = pool.submit(self._near, relaxed, _NEAR)
            for simple in self._simple(self.limit or 0.0) if is_free else ():
                found.append(simple)
                if solving.done() and solving.result() is not INFEASIBLE:
                    break
            near = solving.result()
        plans = [a for a in (near, *found) if a is not None and a is not INFEASIBLE]
        return near, min(plans, key=lambda a: a.objective, default=None)

    def _near(self, relaxed: Answer, near: tuple[float, float]) -> Answer | None:
        cheap, part = near
        cheap /= max(1, len(self.program.problem.tensors))
        upper = self._cheap(relaxed, cheap)
        found = self._restricted(self.boolean, upper, part)
        if found is not None and found is not INFEASIBLE:
            self.solved = int(upper.sum())
        return found

    def _cheap(self, relaxed: Answer, part: float) -> np.ndarray:
        limit = part * abs(relaxed.objective)
        return (relaxed.reduced_costs <= limit) | (relaxed.x > 1e-9)

    def _restricted(
        self,
        model: Model,
        upper: np.ndarray,
        part: float,
        most: float = float("inf"),
    ) -> Answer | None:
        options = self._within(part, _GAP_NEARBY)
        seconds = min(options.time_limit, most)
        options = dataclasses.replace(options, time_limit=seconds)
        return model.run(self.limit, options, upper)

    def _simple(self, limit: float) -> Iterator[Answer | None]:
        """What descents make of what is known, and of the best simple policy."""
        problem = dataclasses.replace(self.program.problem, device_limit=limit)
        if self.start is not None:
            better = descend(problem, self.start, _SIMPLE * self.deadline.left())
            yield None if better is None else self._told(limit, better)
        policy = best_policy(problem, _SIMPLE * self.deadline.left())
        if policy is None:
            return
        name, schedule = policy
        yield dataclasses.replace(self._told(limit, schedule), policy=name)
        better = descend(problem, schedule, _SIMPLE * self.deadline.left())
        yield None if better is None else self._told(limit, better)

    def _told(self, limit: float, schedule: Schedule) -> Answer:
        problem = dataclasses.replace(self.program.problem, device_limit=limit)
        objective, nothing = replay(problem, schedule).makespan * MS, np.zeros(0)
        return Answer(nothing, (), objective, self.bound, nothing, schedule)

    def _annealed(self, relaxed: Answer, limit: float) -> Answer | None:
        if self.deadline.left() < _ANNEAL_SECONDS:
            return None
        # Outside of the network, so with finer windows.
        problem = dataclasses.replace(self.program.problem, device_limit=limit)
        start = self.program.rounded(relaxed)
        schedule = anneal(problem, start, _ANNEAL * self.deadline.left())
        if schedule is None:
            return None
        return self._told(limit, schedule)

    def _split_tensors(self, x: np.ndarray) -> np.ndarray:
        split = np.abs(x - np.round(x)) > 1e-6
        broken = np.zeros(len(self.program.problem.tensors), dtype=bool)
        broken[self.columns.owner[split]] = True
        return broken
