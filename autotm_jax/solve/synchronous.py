"""AutoTM's synchronous program: tensors move between segments, and everything waits.

    minimise    sum_k rho_k + sum_t b_t / B_d2h w(t) + sum_{reads e} b_t / B_h2d x(e)

with a gadget at every touch (section 2.5 of the paper's program). The write indicator
w(t) is the sum of the tensor's write columns, of which a path has at most one. Each
copy also takes the link's latency, which AutoTM's does not.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp

from .columns import Columns
from .problem import Problem
from .program import BooleanProgram
from .rows import Rows
from .tensorgraph import TensorGraphs


class SynchronousProgram(BooleanProgram):
    """Moves between segments."""

    def columns_of(self, problem: Problem) -> Columns:
        """A gadget per touch."""
        return TensorGraphs(problem)

    def timing(self, rows: Rows) -> tuple[list[Any], Any]:
        """Milliseconds of the segments, and of the copies after each other."""
        return [], cp.sum(rows.compute()) + rows.delays()
