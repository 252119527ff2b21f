"""Diving: the relaxation solved again and again, each time with more tensors decided.

Where memory is tight the relaxation divides tensors, the largest ones first of all, and
so does every bound: a boolean program is far from it, and takes minutes. Here those of
the divided tensors that most bytes are at stake for are put on the path that carries
most of them, a few at a time, and the rest is decided anew around them. What turns out
to be impossible is taken back. In the end nothing is divided any more, or little
(T. Achterberg, Constraint Integer Programming, 2007, chapter 9, where single variables
are decided).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .answer import ANYTHING, INFEASIBLE, Answer
from .columns import Columns
from .deadline import Deadline
from .tightening import OPEN, Tightening


# The part of the divided tensors that is decided at a time, how many are in any case,
# and how much more there is to be decided than is divided at the moment: what is
# decided divides others.
_PART = 0.1
_AT_ONCE = 4
_MORE = 1.5

# The bytes that are rounded up at a time, as a part of all that may be there: with more
# most often there is no room for them.
_BYTES = 0.05


def dive(
    columns: Columns,
    relaxed: Answer,
    tightening: Tightening,
    seconds: float,
    below: float = ANYTHING,
) -> Answer:
    """Decides one tensor after the other.

    **Arguments:**

    - `columns`, `relaxed`: of a relaxation, and its optimum.
    - `tightening`: to solve it again.
    - `seconds`: wall time to spend, about. With less time more is decided at once.
    - `below`: what the objective has to be below for the end to be of use.

    **Returns:**

    An `Answer` without reduced costs. Tensors are divided in it only if it came to
    nothing more: as the time was over, as no way to decide one was possible with what
    was decided before, or as it would have been too slow.
    """
    diving = _Dive(columns, relaxed, tightening, Deadline(seconds))
    while diving.goes_on() and diving.answer.objective < below:
        diving.step()
    return diving.answer


class _Dive:
    """What is decided so far, and the relaxation around it."""

    def __init__(
        self,
        columns: Columns,
        relaxed: Answer,
        tightening: Tightening,
        deadline: Deadline,
    ):
        self.columns, self.answer = columns, relaxed
        self.tightening, self.deadline = tightening, deadline
        self.nbytes = np.array([tensor.nbytes for tensor in columns.problem.tensors])
        self.most = _BYTES * tightening.limit
        self.decided = np.full(len(columns.edges), OPEN)
        self.each = 0.0  # seconds of a solve
        self.is_over = False

    def goes_on(self) -> bool:
        """Whether there is more to decide, and time for it."""
        return not self.is_over and self.deadline.left() > 0

    def step(self) -> None:
        """Decides some of the tensors that are divided."""
        x = self.answer.x
        divided = map(int, np.flatnonzero(self.columns.divided(x)))
        paths = {tensor: self.columns.main_path(tensor, x) for tensor in divided}
        carried = {tensor: x[path].min() for tensor, path in paths.items()}
        order = sorted(paths, key=lambda t: -carried[t] * self.nbytes[t])
        if not order:
            self.is_over = True
            return
        count = self._count([(1 - carried[t]) * self.nbytes[t] for t in order])
        while not self._decide({t: paths[t] for t in order[:count]}):
            self.most /= 2
            if count == 1:
                # So that one takes another path.
                first = min(paths[order[0]], key=x.__getitem__)
                self.is_over |= not self._solve([first], [])
                return
            count //= 2

    def _count(self, rounded_up: list[float]) -> int:
        """How many are decided at once, of tensors with bytes that are rounded up."""
        count = max(_AT_ONCE, math.ceil(_PART * len(rounded_up)))
        fitting = int(np.searchsorted(np.cumsum(rounded_up), self.most))
        # With little time, as many as it takes.
        solves = max(1.0, self.deadline.left() / max(self.each, 1e-9))
        needed = math.ceil(_MORE * len(rounded_up) / solves)
        return max(1, min(count, fitting), min(needed, len(rounded_up)))

    def _decide(self, paths: Mapping[int, list[int]]) -> bool:
        """Puts tensors on their paths; whether that is possible, or it is over."""
        is_first, start = (self.decided == OPEN).all(), self.deadline.taken()
        owned = np.isin(self.columns.owner, list(paths))
        taken = [column for path in paths.values() for column in path]
        is_possible = self._solve(np.flatnonzero(owned), taken)
        if is_possible and not is_first:  # which takes longer
            seconds = self.deadline.taken() - start
            self.each = min(self.each or seconds, seconds)
        return is_possible

    def _solve(self, columns: Sequence[int] | np.ndarray, taken: Sequence[int]) -> bool:
        trial = self.decided.copy()
        trial[columns], trial[list(taken)] = 0.0, 1.0
        found = self.tightening.run(trial, self.deadline.left())
        if found is INFEASIBLE:
            return False
        if found is None:
            self.is_over = True
        else:
            self.answer, self.decided = found, trial
        return True
