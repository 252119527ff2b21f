"""The joint program: stay, move, or compute again, chosen together.

    minimise    sum_k T_k + what no compute hides of each copy
    subject to  T_k >= rho_k + again_k
                T_k >= out_k / B_d2h,  in_k / B_h2d,  (out_k + in_k) / B_duplex

over the networks of `network.py`: a copy may run beside many segments, the two
directions are two engines with a bound on both together, and a tensor may be nowhere
and be computed again, if its roots are on the device where that happens. AutoTM's
programs are special cases of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cvxpy as cp
import numpy as np

from .answer import MS
from .checker import replay
from .columns import Columns
from .deadline import Deadline
from .improve import descend
from .network import Network
from .policies import offload_everything
from .problem import Problem
from .program import BooleanProgram
from .rows import Rows
from .solution import Solution, SolverOptions, Status


# Seconds at most for the descent from a plan that moves everything, and the part of the
# time limit that is kept for it.
_DESCENT_SECONDS = 3.0
_DESCENT = 0.05


class JointProgram(BooleanProgram):
    """Stay, move, or compute again."""

    streams = False  # what moves, moves between segments or beside them
    recomputes = True
    sees_loops = True
    carries = True
    allows_everything = True

    def fastest(self, limit: float, options: SolverOptions) -> Solution:
        """As of every program; copies at once are tried where there is no plan."""
        deadline = Deadline(options.time_limit)
        part = (1 - _DESCENT) * options.time_limit
        found = super().fastest(limit, dataclasses.replace(options, time_limit=part))
        if found.schedule is not None:
            return found
        return self._at_once(limit, found, deadline)

    def _at_once(self, limit: float, found: Solution, deadline: Deadline) -> Solution:
        # Where the columns have no plan there may still be one that moves all there is
        # at once, if a slow one.
        problem = dataclasses.replace(self.problem, device_limit=limit)
        seconds = min(deadline.left(), _DESCENT_SECONDS)
        schedule = descend(problem, offload_everything(problem), seconds)
        if schedule is None:
            return found
        makespan, taken = replay(problem, schedule).makespan, deadline.taken()
        bound = problem.fastest()
        status, note, solver = Status.GREEDY, found.note, found.solver
        return Solution(status, schedule, makespan, bound, taken, note, solver)

    def columns_of(self, problem: Problem) -> Columns:
        """See `network.py`."""
        return Network(problem)

    def timing(self, rows: Rows) -> tuple[list[Any], Any]:
        """Segments, with what runs beside them, and what no compute hides."""
        problem = rows.columns.problem
        link, count = problem.link, problem.segments
        times = cp.Variable(count)
        again, out, into = (cp.Variable(count) for _ in range(3))
        # Rates are bytes over the link per second of compute.
        seconds = MS * np.array(problem.compute)
        both = link.d2h * out + link.h2d * into
        timed = [
            rows.runs(again, "again", MS),
            rows.runs(out, "out", 1 / link.d2h),
            rows.runs(into, "in", 1 / link.h2d),
            times >= rows.compute() + again,
            times >= cp.multiply(seconds, out),
            times >= cp.multiply(seconds, into),
            times >= cp.multiply(seconds, both) / link.duplex,
        ]
        return timed, cp.sum(times) + rows.delays()
