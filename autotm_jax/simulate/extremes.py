"""What no placement beats, and what naive replacement of the fast memory comes to."""

from __future__ import annotations

from collections.abc import Sequence

from ..solve import Problem
from .kernels import Kernel
from .memories import Memories
from .outcome import Outcome
from .placed import placed


def all_fast(
    problem: Problem, kernels: Sequence[Kernel], memories: Memories
) -> Outcome:
    """A step with everything in fast memory, however much that is.

    **Arguments:**

    - `problem`, `kernels`, `memories`: what runs, and where.

    **Returns:**

    An `Outcome`.
    """
    return placed("all fast", problem, kernels, memories, ())


def all_slow(
    problem: Problem, kernels: Sequence[Kernel], memories: Memories
) -> Outcome:
    """A step with every tensor in slow memory.

    **Arguments:**

    - `problem`, `kernels`, `memories`: what runs, and where.

    **Returns:**

    An `Outcome`. Arguments, results, and values too small to decide about are fast all
    the same.
    """
    everything = frozenset(range(len(problem.tensors)))
    return placed("all slow", problem, kernels, memories, everything)
