"""AutoTM's static program: every tensor has one place for life.

    minimise    sum_k rho_k

over the choice, per tensor, of device or host (section 2.5 of the paper's program: one
gadget, at the producer). A tensor on the host is streamed by every segment that touches
it.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp

from .columns import Columns
from .problem import Problem
from .program import BooleanProgram
from .rows import Rows
from .schedule import Stream


class Places(Columns):
    """Two columns per tensor: on the device, or on the host.

    **Arguments:**

    - `problem`: the placement problem.
    """

    def __init__(self, problem: Problem):
        super().__init__(problem)
        for index, tensor in enumerate(problem.tensors):
            first, end = tensor.touches[0], tensor.touches[-1] + 1
            here = self.add(index, None, None)
            self.fill("device", here, first, end, tensor.nbytes)
            if not tensor.movable:
                continue
            streams = [Stream(tensor.value, k) for k in tensor.touches]
            there = self.add(index, None, None, *streams)
            self.fill("host", there, first, end, tensor.nbytes)
            for k in tensor.touches:
                self.may_stream.add((index, k))
                self.there[index, k] = [here]


class StaticProgram(BooleanProgram):
    """One place per tensor."""

    def columns_of(self, problem: Problem) -> Columns:
        """Two per tensor."""
        return Places(problem)

    def timing(self, rows: Rows) -> tuple[list[Any], Any]:
        """Milliseconds of the segments."""
        return [], cp.sum(rows.compute())
