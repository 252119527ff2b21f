"""First touch: what an operating system does with memory of two speeds.

As a NUMA policy that prefers one node, and as AutoTM's baseline of that name
(`numa.jl`): each result goes to fast memory if a range there is free that can hold it
when it is made, and otherwise to slow memory. It is never moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..solve import Problem
from .kernels import Kernel
from .memories import Memories
from .outcome import Outcome
from .placed import placed
from .pool import Pool


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

    In each segment the results are placed before what it reads for the last time is
    freed, the best fit among the free ranges for each.
    """
    pool = Pool(limit - int(problem.resident.max(initial=0)))
    made: dict[int, list[int]] = defaultdict(list)
    freed: dict[int, list[int]] = defaultdict(list)
    for index, tensor in enumerate(problem.tensors):
        made[tensor.touches[0]].append(index)
        freed[tensor.touches[-1]].append(index)
    addresses: dict[int, int] = {}
    slow: set[int] = set()
    for segment in range(problem.segments):
        for index in made[segment]:
            address = pool.take(problem.tensors[index].nbytes)
            if address is None:
                slow.add(index)
            else:
                addresses[index] = address
        for index in freed[segment]:
            if index in addresses:
                pool.give(addresses.pop(index))
    return frozenset(slow)
