"""XLA's rule for what to compute again: whatever frees most, at each segment in turn.

XLA's pass (`HloRematerialization`) walks through the schedule. Where memory is over the
limit, it takes the value that frees the most bytes there, less what has to stay for it,
whatever it costs to compute (its cost of a candidate is the limit divided by the bytes
that it frees), and computes it again for its next use; so on until memory is under the
limit there, or nothing is left that frees anything. Then it goes on, also if it has not
kept the limit.

The pass sees instructions after fusion, and takes chains of them; here a candidate is a
tensor with a recipe. What it compresses or moves to the host is another mode of it.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from typing import NamedTuple

from .deadline import Deadline
from .footprint import Footprint, footprint
from .ledger import Choice, Ledger
from .problem import Problem
from .schedule import Schedule


LARGEST_FIRST = "what frees most is computed again"
"""What reports call it."""


def largest_first(problem: Problem, seconds: float = math.inf) -> Schedule:
    """What XLA's pass would compute again.

    **Arguments:**

    - `problem`: the placement problem; its device limit is the pass's.
    - `seconds`: wall time to spend at most.

    **Returns:**

    A `Schedule` of recomputations. It may break the limit, but no other rule.
    """
    deadline = Deadline(seconds)
    unlimited = dataclasses.replace(problem, device_limit=math.inf)
    rule = _Rule(Ledger(unlimited, Schedule()))
    device = rule.ledger.device()
    for segment in range(problem.segments):
        while device[segment] > problem.device_limit and deadline.left() > 0:
            if not rule.take(segment):
                break  # over the limit it stays
            device = rule.ledger.device()
    return rule.ledger.schedule()


class _Candidate(NamedTuple):
    """A tensor, by position, that could be away after one segment until another."""

    tensor: int
    after: int
    use: int


# Bytes that are freed, or held where they are negative, from one segment until before
# another one.
_Change = tuple[int, int, int]


class _Rule:
    """What is computed again so far, and what more would free.

    **Arguments:**

    - `ledger`: of the schedule that is changed.
    """

    def __init__(self, ledger: Ledger):
        self.ledger, self.tensors = ledger, ledger.problem.tensors
        self.candidates = [
            _Candidate(index, a, b)
            for index, tensor in enumerate(self.tensors)
            if tensor.recipe is not None
            for a, b in itertools.pairwise(tensor.touches)
            if b in tensor.recipe.seconds
        ]
        # What a candidate frees depends on these tensors, and is known until one of
        # them changes.
        self.known: dict[_Candidate, tuple[_Change, ...]] = {}
        self.concerned = collections.defaultdict[int, list[_Candidate]](list)
        for candidate in self.candidates:
            for index in self._tensors_of(candidate):
                self.concerned[index].append(candidate)

    def take(self, segment: int) -> bool:
        """Takes what frees most at a segment; whether anything does."""
        choices = self.ledger.choices
        best, most = None, (0, -math.inf)
        for bound, order, candidate in self._by_size(segment):
            if (bound, -order) <= most:
                continue  # nor does any that holds as little, but an earlier one may
            freed = sum(
                nbytes
                for first, end, nbytes in self._changes(candidate)
                if first <= segment < end
            )
            if freed > 0 and (freed, -order) > most:
                best, most = candidate, (freed, -order)
        if best is None:
            return False
        again = tuple(sorted((*choices[best.tensor].again, best.use)))
        self.ledger.change({best.tensor: Choice(again=again)})
        for index in self._tensors_of(best):
            for candidate in self.concerned[index]:
                self.known.pop(candidate, None)
        return True

    def _by_size(self, segment: int) -> list[tuple[int, int, _Candidate]]:
        """What could be away at a segment, after the most that it may free."""
        choices, out = self.ledger.choices, list[tuple[int, int, _Candidate]]()
        for order, candidate in enumerate(self.candidates):
            index, after, use = candidate
            if after < segment < use and use not in choices[index].again:
                # What it is made from holds no less for that.
                found = self.ledger.footprint_of(index)
                held = self._held(index, found).items()
                most = sum(n for (first, end), n in held if first <= segment < end)
                out.append((most, order, candidate))
        return sorted(out, key=lambda c: (-c[0], c[1]))

    def _tensors_of(self, candidate: _Candidate) -> set[int]:
        recipe = self.tensors[candidate.tensor].recipe
        assert recipe is not None
        return {candidate.tensor, *recipe.roots}

    def _changes(self, candidate: _Candidate) -> tuple[_Change, ...]:
        if candidate not in self.known:
            self.known[candidate] = tuple(self._found(candidate))
        return self.known[candidate]

    def _found(self, candidate: _Candidate) -> list[_Change]:
        ledger, out = self.ledger, list[_Change]()
        for index in sorted(self._tensors_of(candidate)):
            again, reads = ledger.choices[index].again, set(ledger.reads[index])
            if index == candidate.tensor:
                again = (*again, candidate.use)
            else:
                reads.add(candidate.use)
            now = ledger.footprint_of(index)
            then = footprint(self.tensors[index], again, reads, (), ())
            if then.faults:
                return []
            before, after = self._held(index, now), self._held(index, then)
            out += [(*span, n) for span, n in (before - after).items()]
            out += [(*span, -n) for span, n in (after - before).items()]
        return out

    def _held(
        self, index: int, found: Footprint
    ) -> collections.Counter[tuple[int, int]]:
        """Bytes by the span of segments for which they are held."""
        tensor = self.tensors[index]
        held = collections.Counter[tuple[int, int]]()
        for span in found.stays:
            held[span] += tensor.nbytes
        if found.stack is not None:
            held[found.stack] += tensor.stacked
        return held
