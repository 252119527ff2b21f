"""XLA's own rematerialisation, on a problem: what frees most is computed again.

XLA's pass (`HloRematerialization`) walks through the schedule. Where memory is over the
limit, it takes the value that frees the most bytes there, less what has to stay for it,
whatever it costs to compute (its cost of a candidate is the limit divided by the bytes
that it frees), and computes it again for its next use; so on until memory is under the
limit there, or nothing is left that frees anything. Then it goes on, also if it has not
kept the limit.

The pass sees instructions after fusion, and takes chains of them; here a candidate is a
tensor with a recipe. What it compresses or moves to the host is another mode of it. All
times are simulated.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

from ..solve import Problem, Recompute, Schedule, replay
from ..solve.footprint import Footprint, footprint
from .outcome import Outcome
from .playing import simulate


def xla_rematerialisation(problem: Problem) -> Outcome:
    """A step as XLA's pass leaves it.

    **Arguments:**

    - `problem`: the step; its device limit is the pass's.

    **Returns:**

    An `Outcome`. If it takes more than the device limit, its note says so.
    """
    schedule = rematerialised(problem)
    return simulate(problem, schedule).outcome("XLA's rematerialisation")


def rematerialised(problem: Problem) -> Schedule:
    """What the pass computes again.

    **Arguments:**

    - `problem`: the step; its device limit is the pass's.

    **Returns:**

    A `Schedule` of recomputations. It may not keep the limit.
    """
    unlimited = dataclasses.replace(problem, device_limit=math.inf)
    taken = _Taken(problem)
    state = replay(unlimited, Schedule())
    for segment in range(problem.segments):
        while state.device[segment] > problem.device_limit:
            if not taken.take(segment):
                break  # over the limit it stays
            state = replay(unlimited, taken.schedule())
    return taken.schedule()


class _Taken:
    """What is computed again so far, by tensor."""

    def __init__(self, problem: Problem):
        self.tensors = problem.tensors
        # Segments before which it is computed again, and others are from it.
        self.again = [frozenset[int]() for _ in self.tensors]
        self.reads = [frozenset[int]() for _ in self.tensors]
        self.footprint = functools.cache(self._footprint)

    def schedule(self) -> Schedule:
        found = [
            Recompute(tensor.value, use)
            for tensor, uses in zip(self.tensors, self.again, strict=True)
            for use in uses
        ]
        return Schedule(recomputes=tuple(sorted(found)))

    def take(self, segment: int) -> bool:
        """Takes what frees most at a segment; whether anything does."""
        candidates = self._candidates(segment)
        freed = {(i, b): self._freed(i, b, segment) for i, b in candidates}
        if max(freed.values(), default=0) <= 0:
            return False
        index, use = max(freed, key=freed.__getitem__)
        for i, (again, reads) in self._with(index, use).items():
            self.again[i], self.reads[i] = again, reads
        return True

    def _candidates(self, segment: int) -> list[tuple[int, int]]:
        """What could be away at a segment, and the use it would be back for."""
        return [
            (index, b)
            for index, tensor in enumerate(self.tensors)
            if tensor.recipe is not None
            for a, b in itertools.pairwise(tensor.touches)
            if a < segment < b
            and b in tensor.recipe.seconds
            and b not in self.again[index]
        ]

    def _with(
        self, index: int, use: int
    ) -> dict[int, tuple[frozenset[int], frozenset[int]]]:
        """What else is computed again and read, if a tensor is for one more use."""
        recipe = self.tensors[index].recipe
        assert recipe is not None
        out = {i: (self.again[i], self.reads[i] | {use}) for i in recipe.roots}
        return {**out, index: (self.again[index] | {use}, self.reads[index])}

    def _freed(self, index: int, use: int, segment: int) -> int:
        """Bytes at a segment, less those of what stays there for it; 0 if it cannot."""
        freed = 0
        for i, then in self._with(index, use).items():
            found = self.footprint(i, *then)
            if found.faults:
                return 0
            now = self.footprint(i, self.again[i], self.reads[i])
            freed += self._held(i, now, segment) - self._held(i, found, segment)
        return freed

    def _held(self, index: int, found: Footprint, segment: int) -> int:
        tensor, stack = self.tensors[index], found.stack
        stays = sum(first <= segment < end for first, end in found.stays)
        is_stacked = stack is not None and stack[0] <= segment < stack[1]
        return stays * tensor.nbytes + is_stacked * tensor.stacked

    def _footprint(
        self, index: int, again: frozenset[int], reads: frozenset[int]
    ) -> Footprint:
        return footprint(self.tensors[index], again, reads, (), ())
