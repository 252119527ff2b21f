"""The search for a boolean solution near a program's linear relaxation.

The optimum of the relaxation is the bound that gaps are measured from. It is nearly
integral, so boolean solutions are looked for near it: by a dive from it (`dive.py`),
and with boolean programs that leave only the columns that cost nothing there, or only
what it divides, or what costs little.
Only if the gap is still too large is the whole boolean program solved, and then for
what beats the best so far by more than the gap: a column whose reduced cost is too much
for that is left out (reduced-cost fixing), and if there is nothing, that is the proof.

Of a deep network already the relaxation may take longer than there is time. So beside
every program, which is solved in a process of its own, plans are looked for that need
none (`starts.py`), and at the end the relaxation is rounded and annealed. Whatever ends
early, the best that was found until then is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import numpy as np

from .answer import ANYTHING, INFEASIBLE, MIB, MS, Answer
from .checker import replay
from .deadline import Deadline
from .dive import dive
from .model import Model
from .schedule import Schedule
from .solution import Solution, SolverOptions, Status
from .starts import Starts
from .tightening import Tightening
from .worker import solver_name


if TYPE_CHECKING:
    from .program import BooleanProgram


# The part of the time for the relaxation. Where it takes longer, what needs none gets
# the rest.
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

# The part of the time that is left for a dive. Nothing else is done meanwhile: it is
# hundreds of short questions to a solver.
_DIVE = 0.7

# A program that leaves only what the relaxation splits is small if no more tensors are
# split than this fraction.
_FEW_SPLIT = 0.15

# Seconds for that.
_SPLIT_SECONDS = 3.0

# How long the relaxation, and what is nearest to it, have all of this process and its
# machine for themselves, in seconds and as a part of the time limit: most often they
# need no more.
_ALONE_SECONDS = 1.0
_ALONE = 0.1

# Beside programs of so many columns, which take long, plans are also annealed. Beside
# smaller ones that would only take the solver's time where processors are few.
_LONG = 8000

# The part of the time that is left for plans that need no program, where there is no
# plan near the relaxation.
_SIMPLE = 0.5

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
        # The best that a solver found, and whether it has looked near the relaxation.
        self.chosen: Answer | None = None
        self.is_near_over = False
        # Columns of the largest program that was solved, near the relaxation.
        self.solved = 0
        problem = program.problem
        least = problem.floor() if limit is None else problem.fastest()
        self.bound = least / self.unit
        # Plans that need no program, if all of them are of this program's kind.
        self.starts: Starts | None = None
        if limit is not None and program.allows_everything:
            bounded = dataclasses.replace(problem, device_limit=limit)
            self.starts = Starts(bounded, start, self.deadline)
        # Whether it was proved that there is no plan among the columns.
        self.has_none = False

    @property
    def boolean(self) -> Model:
        """The boolean program, built when it is first needed."""
        return self.program.boolean

    def run(self) -> Solution:
        """The best that is found in the time."""
        if self.start is not None and self.limit is not None:
            self.best = self.chosen = self._told(self.limit, self.start)
        relaxed = self._beside(
            lambda: self.relaxed.run(self.limit, self._within(_RELAXED)), is_short=True
        )
        if relaxed is INFEASIBLE and self.best is None:
            return self._solution(Status.INFEASIBLE)
        if relaxed is not INFEASIBLE:
            self._near_and_whole(relaxed)
        if self._is_good(self.best):
            # Within the gap one is as good as another, and the windows of columns leave
            # copies the time that they need.
            if self._is_good(self.chosen):
                self.best = self.chosen
            return self._solution(Status.OPTIMAL)
        if self.best is None or self.best.schedule is None:
            is_none = self.has_none and self.best is None
            return self._solution(Status.INFEASIBLE if is_none else Status.TIME_LIMIT)
        return self._solution(Status.POLICY if self.best.policy else Status.ROUNDED)

    def _near_and_whole(self, relaxed: Answer | None) -> None:
        """Goes on with what the relaxation says, if it came to an end."""
        if relaxed is not None:
            self.bound = max(self.bound, relaxed.bound)
            if self.starts is not None:
                self.starts.begin_with(self.program.rounded(relaxed))
        for found in self._attempts(relaxed):
            self._consider(found)
            if self._is_over():
                break
        if self._is_over():
            return
        every = self._whole(relaxed, 1.0)
        self.has_none = every is INFEASIBLE and self.best is None
        self._consider(every)

    def _within(self, part: float, gap: float = 1.0) -> SolverOptions:
        """Options with a part of the time that is left, and of the gap."""
        seconds, gap = part * self.deadline.left(), gap * self.options.gap
        return dataclasses.replace(self.options, time_limit=seconds, gap=gap)

    def _is_over(self) -> bool:
        worth = 0.0
        if self.best is not None:
            worth = min(_WORTH_SECONDS, _WORTH * self.options.time_limit)
        if self.deadline.left() <= worth:
            return True
        # Where a solver is fast, it is asked although another plan is good already.
        is_long = len(self.columns.edges) >= _LONG
        is_asked = is_long or self.is_near_over or self._is_good(self.chosen)
        return is_asked and self._is_good(self.best)

    def _consider(self, found: Answer | None) -> None:
        if found is None or found is INFEASIBLE:
            return
        if self.best is None or found.objective < self.best.objective:
            self.best = found
        is_chosen = found.schedule is None
        if is_chosen and (
            self.chosen is None or found.objective < self.chosen.objective
        ):
            self.chosen = found

    def _is_good(self, found: Answer | None, times: float = 1.0) -> bool:
        """Whether it is within so many times the gap."""
        if found is None:
            return False
        allowed = times * self.options.gap * abs(found.objective) + 1e-9
        return found.objective - self.bound <= allowed

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
        if relaxed is None:
            self.is_near_over = True
            self._simple()
            return
        broken = self.columns.divided(relaxed.x)
        if self.starts is not None:
            yield self._dived(relaxed, self.starts)
        cheap, part = _NEAREST
        upper = self._cheap(relaxed, cheap)
        yield self._restricted(
            lambda: self.program.sparse, upper, part, _NEAREST_SECONDS
        )
        if broken.sum() <= _FEW_SPLIT * broken.size:
            # Only what is split.
            upper = (relaxed.x > 0.5) | broken[self.columns.owner]
            yield self._restricted(
                lambda: self.program.sparse, upper, 1.0, _SPLIT_SECONDS
            )
        near = self._near(relaxed, _NEAR)
        self.is_near_over = True
        yield near
        if near is INFEASIBLE:
            self._simple(_SIMPLE)
            yield self._near(relaxed, _FAR)
        if self._is_good(self.best, _PROVABLE):
            yield self._whole(relaxed, _PROOF)
        tie = self.program.tie
        columns, decisions = map(int, tie.shape)  # pyright: ignore[reportArgumentType]
        if decisions <= _ALIKE * columns:
            # What is cheap for one of a group is allowed to all.
            upper = tie @ (tie.T @ self._cheap(relaxed, _ALIKE_NEAR)) > 0
            options = self._within(_TIED, _GAP_NEARBY)
            below = self._worth_finding()
            yield self._beside(
                lambda: self.program.alike.run(self.limit, options, upper, below), upper
            )
        self._simple(_SIMPLE)

    def _dived(self, relaxed: Answer, starts: Starts) -> Answer | None:
        """The plan that a dive ends with, if nothing is to be mended."""
        posed, seconds = self.relaxed.posed, _DIVE * self.deadline.left()
        if posed is None or seconds <= 0:
            return None
        tightening = Tightening(relaxed, posed, starts.problem.device_limit)
        below = self._worth_finding()
        end = dive(self.columns, relaxed, tightening, seconds, below)
        if end is relaxed:
            return None  # which is rounded in any case
        schedule = self.program.rounded(end)
        starts.begin_with(schedule)
        if replay(starts.problem, schedule).faults:
            return None
        return self._told(starts.problem.device_limit, schedule)

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
        options = self._within(part)
        every = self._beside(
            lambda: self.boolean.run(self.limit, options, upper, cutoff), upper
        )
        if every is INFEASIBLE:
            # Without anything to beat, there is no plan among the columns at all.
            if below < ANYTHING:
                self.bound = max(self.bound, below)
        elif every is not None:
            self.bound = max(self.bound, min(every.bound, below))
        return every

    def _beside(
        self,
        solve: Callable[[], Answer | None],
        upper: np.ndarray | None = None,
        is_short: bool = False,
    ) -> Answer | None:
        """What a solver answers, while plans are looked for that need none.

        HiGHS runs in a process of its own. What should be short is left alone at first.
        """
        alone = min(_ALONE_SECONDS, _ALONE * self.options.time_limit)
        columns = len(self.columns.edges) if upper is None else upper.sum()
        with ThreadPoolExecutor(1) as pool:
            solving = pool.submit(solve)
            wait([solving], alone if is_short else 0.0)
            if self.starts is not None:
                self.starts.is_wanted = lambda: not solving.done()
            while not solving.done() and self._take_turn(columns >= _LONG):
                pass
            return solving.result()

    def _simple(self, part: float = 1.0) -> None:
        """Takes what needs no program, for a part of the time that is left."""
        deadline = Deadline(part * self.deadline.left())
        if self.starts is not None:
            self.starts.is_wanted = lambda: deadline.left() > 0
        while self._take_turn(True):  # once also without any time
            if deadline.left() <= 0 or self._is_over():
                break

    def _take_turn(self, anneals: bool) -> bool:
        """Takes what needs no program for a while; whether there was anything to do."""
        turn = None if self.starts is None else self.starts.turn(anneals)
        if turn is None:
            return False
        name, schedule = turn
        if schedule is not None:
            told = self._told(self.limit or 0.0, schedule)
            self._consider(dataclasses.replace(told, policy=name))
        return True

    def _near(self, relaxed: Answer, near: tuple[float, float]) -> Answer | None:
        cheap, part = near
        cheap /= max(1, len(self.program.problem.tensors))
        upper = self._cheap(relaxed, cheap)
        found = self._restricted(lambda: self.boolean, upper, part)
        if found is not None and found is not INFEASIBLE:
            self.solved = int(upper.sum())
        return found

    def _cheap(self, relaxed: Answer, part: float) -> np.ndarray:
        limit = part * abs(relaxed.objective)
        return relaxed.reduced_costs <= limit

    def _restricted(
        self,
        model: Callable[[], Model],
        upper: np.ndarray,
        part: float,
        most: float = float("inf"),
    ) -> Answer | None:
        options = self._within(part, _GAP_NEARBY)
        seconds = min(options.time_limit, most)
        options = dataclasses.replace(options, time_limit=seconds)
        is_short = most < float("inf")
        return self._beside(
            lambda: model().run(self.limit, options, upper), upper, is_short
        )

    def _told(self, limit: float, schedule: Schedule) -> Answer:
        problem = dataclasses.replace(self.program.problem, device_limit=limit)
        # As the program counts, which the bound is of, and what a solver finds.
        seconds = self.program.seconds_of(schedule, replay(problem, schedule))
        objective, nothing = seconds * MS, np.zeros(0)
        return Answer(nothing, (), objective, self.bound, nothing, schedule)
