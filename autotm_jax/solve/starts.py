"""Plans that need no program: made by a rule, improved by a descent, annealed.

The relaxation may take longer than a search has, so these are looked for while it is
being solved: what a person would write down, what XLA computes again, the plan that
treats all layers alike, and, once it is known, the relaxation rounded to whole tensors.
All of it is done in slices, so that whoever asks for plans can turn to something else
in between, and nothing that was found is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from .checker import replay
from .deadline import Deadline
from .improve import Descent, anneal
from .largest_first import LARGEST_FIRST, largest_first
from .policies import best_policy
from .problem import Problem
from .schedule import Schedule
from .uniform import LIKE_LAYERS, uniform


# Seconds of a slice at most: so long nobody else is asked.
_SLICE = 0.5

# The parts of the time that is left for a rule, and for a first descent from its plan,
# and how many seconds that gets at most: it goes on when all rules had their turn.
_RULE = 0.5
_DESCENT = 0.3
_DESCENT_SECONDS = 5.0

# The part of the time that is left for an annealing (the descents that follow take half
# as long again), and the seconds with which it is not worth beginning.
_ANNEAL = 0.5
_ANNEAL_SECONDS = 2.0


Turn = tuple[str, Schedule | None]
"""A plan, if one was found in a turn, and the name of the policy that it is, if any."""


class Starts:
    """Plans that pass the checker, those that are found first first.

    - `is_wanted`: asked now and then whether to go on with an annealing.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `known`: a plan that is known already, if one is.
    - `deadline`: of the search.
    """

    def __init__(self, problem: Problem, known: Schedule | None, deadline: Deadline):
        self.problem, self.known, self.deadline = problem, known, deadline
        self.is_wanted: Callable[[], bool] = lambda: True
        self._rounded: Schedule | None = None
        self._descents: list[Descent] = []
        self._plans, self._annealed = self._by_rules(), self._by_annealing()

    def turn(self, anneals: bool) -> Turn | None:
        """Goes on for a while.

        **Arguments:**

        - `anneals`: whether to anneal where all else is done. That takes all the time
            that there is.

        **Returns:**

        A `Turn`, or `None` if there is nothing more to be done.
        """
        found = next(self._plans, None)
        return next(self._annealed, None) if found is None and anneals else found

    def begin_with(self, rounded: Schedule) -> None:
        """Goes on with the relaxation rounded, which may break any limit."""
        self._rounded = rounded
        self._plans = itertools.chain(self._descended(rounded), self._plans)

    def _by_rules(self) -> Iterator[Turn]:
        policy = best_policy(self.problem)
        if policy is not None:
            yield policy
        if self.known is not None:
            yield from self._descended(self.known)
        frees_most = largest_first(self.problem, _RULE * self.deadline.left())
        if not replay(self.problem, frees_most).faults:
            yield LARGEST_FIRST, frees_most
        yield from self._descended(frees_most)
        alike = uniform(self.problem, _RULE * self.deadline.left())
        yield LIKE_LAYERS, alike
        if alike is not None:
            yield from self._descended(alike)
        for descent in sorted(self._descents, key=Descent.score):
            yield from self._slices(descent, self.deadline)

    def _by_annealing(self) -> Iterator[Turn]:
        # What a descent ends with is hard to leave for something better, so that first
        # what was not made to fit yet.
        if self._rounded is not None:
            yield from self._annealings(self._rounded)
        for descent in sorted(self._descents, key=Descent.score):
            end = descent.found()
            if end is not None:
                yield from self._annealings(end)

    def _annealings(self, schedule: Schedule) -> Iterator[Turn]:
        is_whole = False
        while not is_whole and self.deadline.left() >= _ANNEAL_SECONDS:
            # One that is cut short comes to nothing, and is begun again.
            seconds = _ANNEAL * self.deadline.left()
            yield "", anneal(self.problem, schedule, seconds, self.is_wanted)
            is_whole = self.is_wanted()

    def _descended(self, schedule: Schedule) -> Iterator[Turn]:
        descent = Descent(self.problem, schedule)
        self._descents.append(descent)
        seconds = min(_DESCENT_SECONDS, _DESCENT * self.deadline.left())
        yield from self._slices(descent, Deadline(seconds))

    def _slices(self, descent: Descent, deadline: Deadline) -> Iterator[Turn]:
        while not descent.is_over and deadline.left() > 0:
            descent.run(min(_SLICE, deadline.left()))
            yield "", descent.found()
