"""AutoTM's asynchronous program: a copy may also run beside one segment.

    minimise    sum_k y_k + the copies of the synchronous program
    subject to  y_k >= rho_k
                y_k >= M_k = sum_{copies e beside k} b_t / B(e) x(t, e)

with a gadget at every touch and at every segment within 15 of one (section 2.5 of the
paper's program). Copies in both directions add up, as with one copy engine. What the
link's description says no compute hides, its latency, comes on top, which AutoTM's does
not.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import cvxpy as cp
import numpy as np

from .answer import MS
from .beside import lay_beside
from .checker import Replay
from .columns import Columns
from .deadline import Deadline
from .one_engine import one_engine
from .problem import Problem
from .program import BooleanProgram
from .rows import Rows
from .schedule import Schedule
from .solution import Solution, SolverOptions, Status
from .synchronous import SynchronousProgram
from .tensorgraph import TensorGraphs


# How far from a touch a tensor moves (`bound` in AutoTM's code).
_REACH = 15

# The part of the time for the synchronous program.
_PART = 0.25

# The part of the time to lay copies beside segments without a program, at most. The
# relaxation takes most of what is left, and without it nothing is proved.
_LAID = 0.1


class AsynchronousProgram(BooleanProgram):
    """Moves beside a segment, or between two."""

    @functools.cached_property
    def _synchronous(self) -> SynchronousProgram:
        return SynchronousProgram(self.problem)

    def fastest(self, limit: float, options: SolverOptions) -> Solution:
        """As of every program, from the synchronous plan, and never worse than that.

        Every plan of that is one here, too, and it has far fewer columns. Its copies
        are laid beside segments before this program is solved, and often that is as
        much as can be found in the time.
        """
        deadline = Deadline(options.time_limit)
        part = dataclasses.replace(options, time_limit=_PART * options.time_limit)
        waiting = self._synchronous.fastest(limit, part)
        self._remember(waiting)
        if waiting.schedule is not None:
            problem = dataclasses.replace(self.problem, device_limit=limit)
            seconds = min(_LAID * options.time_limit, deadline.left())
            laid = lay_beside(problem, waiting.schedule, _REACH, seconds)
            self._remember(dataclasses.replace(waiting, schedule=laid))
        rest = dataclasses.replace(options, time_limit=deadline.left())
        found = super().fastest(limit, rest)
        found = dataclasses.replace(found, seconds=deadline.taken())
        if waiting.schedule is None or found.schedule != waiting.schedule:
            return found
        is_proved = found.status is Status.OPTIMAL
        status = Status.OPTIMAL if is_proved else Status.TIME_LIMIT
        note = "; ".join(filter(None, ("no copy runs beside a segment", found.note)))
        return dataclasses.replace(found, status=status, note=note)

    def seconds_of(self, schedule: Schedule, replayed: Replay) -> float:
        """With both directions added up, as in the rows of this program.

        The checker has two engines, and finds less. What is found is compared with a
        bound, and with what else the solver finds, and both count as the program does:
        a plan without a program is worth no more than the same plan with one.
        """
        beside, waits = one_engine(self.problem, schedule, replayed)
        return float(np.maximum(replayed.compute, beside).sum()) + waits

    def columns_of(self, problem: Problem) -> Columns:
        """A gadget per touch and per segment near one."""
        return TensorGraphs(problem, _REACH)

    def timing(self, rows: Rows) -> tuple[list[Any], Any]:
        """Segments and what runs beside them, and the copies that run alone."""
        problem = rows.columns.problem
        link, count = problem.link, problem.segments
        y, out, into = (cp.Variable(count) for _ in range(3))
        # Rates are bytes per second of the segment's compute.
        seconds = MS * np.array(problem.compute)
        timed = [
            rows.runs(out, "out", 1 / link.d2h),
            rows.runs(into, "in", 1 / link.h2d),
            y >= rows.compute(),
            y >= cp.multiply(seconds, out + into),
        ]
        return timed, cp.sum(y) + rows.delays()
