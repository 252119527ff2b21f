"""First touch: what an operating system does with memory of two speeds.

As a NUMA policy that prefers one node, and as AutoTM's baseline of that name
(`numa.jl`): each result goes to fast memory if a range there is free that can hold it
when it is made, and otherwise to slow memory. It is never moved.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..solve import Problem
from .kernels import Kernel
from .memories import Memories
from .outcome import Outcome
from .placed import placed
from .pool import Pool, addresses


def first_touch(
    problem: Problem, kernels: Sequence[Kernel], memories: Memories, limit: int
) -> Outcome:
    """A step under the policy.

    **Arguments:**

    - `problem`, `kernels`, `memories`: what runs, and where.
    - `limit`: bytes of fast memory. Those of values too small to decide about are taken
        off it first.

    **Returns:**

    An `Outcome`.
    """
    slow = first_touched(problem, limit)
    return placed("first touch", problem, kernels, memories, slow)


def first_touched(problem: Problem, limit: int) -> frozenset[int]:
    """The tensors, by position, that the policy leaves to slow memory.

    Each takes the best fit among the free ranges.
    """
    pool = Pool(limit - int(problem.resident.max(initial=0)))
    found = addresses(problem, [tensor.nbytes for tensor in problem.tensors], pool)
    return frozenset(index for index, at in enumerate(found) if at is None)
