"""How XLA packs buffers: live bytes are not yet an allocation.

XLA gives every temporary a fixed offset in one allocation. It places buffers one after
the other, largest first (or longest-lived first; the better of the two is taken),
each into the smallest gap that is free for its whole life. What a set of lifetimes
takes is therefore more than its largest sum of live bytes; by how much depends on the
plan. (XLA: `GlobalDecreasingSizeBestFitHeap`.)

Lives are counted in *moments*. Every segment has one before it runs, for what is
computed again apart from it, and those of its `Timeline`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict

import numpy as np

from ..timeline import Timeline
from .checker import Replay
from .problem import Problem


@dataclasses.dataclass(frozen=True)
class Packing:
    """Where every buffer ends up in one allocation.

    - `buffers`: rows of `(bytes, first, end)`: from segment `first` until before
        segment `end`. A buffer that a result takes over from an operand is one.
    - `tops`: per buffer, the offset of its end.
    - `nbytes`: of the allocation, and of the state that is on the device beside it.
    """

    buffers: np.ndarray
    tops: np.ndarray
    nbytes: int


def pack(problem: Problem, replayed: Replay) -> Packing:
    """The allocation that XLA is expected to make for a plan.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.

    **Returns:**

    A `Packing`; never smaller than the plan's peak of live bytes.
    """
    buffers = _Lives(problem, replayed).buffers()
    rows = np.array([dataclasses.astuple(b) for b in buffers], dtype=np.int64)
    rows = rows.reshape(-1, 5)
    size, life = rows[:, 0], rows[:, 4] - rows[:, 3]
    spatial = np.lexsort((-life, -size))
    temporal = np.lexsort((-size, -life))
    tried = [
        (rows[order], _tops(rows[order][:, [0, 3, 4]])) for order in (spatial, temporal)
    ]
    placed, tops = min(tried, key=lambda t: t[1].max(initial=0))
    # The state has buffers of its own.
    nbytes = int(tops.max(initial=0)) + replayed.carried
    return Packing(placed[:, :3], tops, max(nbytes, replayed.device_peak))


@dataclasses.dataclass(eq=False)
class _Buffer:
    """From segment `first` until before `end`, and from moment `born` until `dead`."""

    nbytes: int
    first: int
    end: int
    born: int
    dead: int


class _Lives:
    """The lives of all buffers of a plan, in segments and in moments."""

    def __init__(self, problem: Problem, replayed: Replay):
        self.problem, self.replayed = problem, replayed
        self.timelines = [self._timeline(k) for k in range(problem.segments)]
        moments = (1 if t is None else 1 + t.moments for t in self.timelines)
        self.begin = list(itertools.accumulate(moments, initial=0))
        # By segment, what it makes, what is computed again for it, what it reads last.
        self.made: dict[int, list[tuple[int, _Buffer]]] = defaultdict(list)
        self.again: dict[int, list[tuple[int, _Buffer]]] = defaultdict(list)
        self.last_read: dict[int, list[tuple[int, _Buffer]]] = defaultdict(list)
        # Results that took the place of an operand, by `id`, with that buffer.
        self.heirs: dict[int, _Buffer] = {}

    def _timeline(self, segment: int) -> Timeline | None:
        variant = self.replayed.picked.get(segment, 0)
        if variant:
            return self.problem.variants[segment][variant - 1].timeline
        return self.problem.timelines.get(segment)

    def buffers(self) -> list[_Buffer]:
        """All of them."""
        problem, replayed = self.problem, self.replayed
        tensors = {t.value: t for t in problem.tensors}
        stays: list[_Buffer] = []
        others = [self._buffer(*small) for small in problem.small]
        for value, first, end in replayed.stacks:
            others.append(self._buffer(tensors[value].stacked, first, end))
        for value, first, end in replayed.stays:
            buffer = self._buffer(tensors[value].nbytes, first, end)
            stays.append(buffer)
            tensor = tensors[value]
            if tensor.maker == first:
                self.made[first].append((value, buffer))
            elif (value, first) in replayed.again:
                self.again[first].append((value, buffer))
            if end - 1 in tensor.touches and end - 1 != tensor.maker:
                self.last_read[end - 1].append((value, buffer))
        # What is left lives inside one segment: its workspace, as far as it is not
        # known better, and what a recomputation or a stream needs.
        rest = replayed.device - replayed.carried
        for buffer in (*stays, *others):
            rest[buffer.first : buffer.end] -= buffer.nbytes
        for k, timeline in enumerate(self.timelines):
            if timeline is not None:
                rest[k] -= replayed.workspace[k]
                others += self._refine(k, timeline)
            if rest[k] >= 1:
                others.append(self._buffer(int(rest[k]), k, k + 1))
        there = [b for b in stays if b.born < b.dead and id(b) not in self.heirs]
        return there + others

    def _buffer(self, nbytes: int, first: int, end: int) -> _Buffer:
        return _Buffer(nbytes, first, end, self.begin[first], self.begin[end])

    def _refine(self, k: int, timeline: Timeline) -> list[_Buffer]:
        """Writes the moments of a segment into what it makes and reads last.

        Returns the buffers of its own.
        """
        start = self.begin[k] + 1
        born, gone = dict(timeline.made), dict(timeline.dying)
        place_of = {result: operand for operand, result in timeline.replaced}
        own: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for nbytes, first, end in timeline.own:
            own[nbytes].append((first, end))
        last_read = {v: self.heirs.get(id(b), b) for v, b in self.last_read[k]}
        for value, buffer in last_read.items():
            if value in gone and buffer.end == k + 1:
                buffer.dead = start + gone[value]
        for value, buffer in (*self.made[k], *self.again[k]):
            is_short = buffer.end == k + 1
            place = last_read.get(place_of.get(value, -1))
            if value in born:
                buffer.born = start + born[value]
            elif place is not None and place.end == k + 1:
                place.end, place.dead = buffer.end, buffer.dead
                self.heirs[id(buffer)] = place
            elif is_short and own[buffer.nbytes]:
                first, end = own[buffer.nbytes].pop()
                buffer.born, buffer.dead = start + first, start + end
            elif is_short and (value, buffer) in self.made[k]:
                buffer.born = buffer.dead  # nobody reads it: it is not made
            elif (value, buffer) in self.made[k]:
                buffer.born = start
        return [
            _Buffer(nbytes, k, k + 1, start + first, start + end)
            for nbytes, lives in own.items()
            for first, end in lives
        ]


def packed_bytes(problem: Problem, replayed: Replay) -> int:
    """Bytes of the allocation that XLA is expected to make for a plan.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.

    **Returns:**

    Bytes; never less than the plan's peak of live bytes.
    """
    return pack(problem, replayed).nbytes


def _tops(buffers: np.ndarray) -> np.ndarray:
    count = len(buffers)
    offsets = np.zeros(count, dtype=np.int64)
    for i, (nbytes, first, end) in enumerate(buffers):
        placed = buffers[:i]
        meets = (placed[:, 1] < end) & (placed[:, 2] > first)
        low = offsets[:i][meets]
        high = low + placed[:, 0][meets]
        offsets[i] = _best_fit(low, high, int(nbytes))
    return offsets + buffers[:, 0]


def _best_fit(low: np.ndarray, high: np.ndarray, nbytes: int) -> int:
    if not low.size:
        return 0
    order = np.argsort(low)
    low, high = low[order], np.maximum.accumulate(high[order])
    starts = np.concatenate([[0], high[:-1]])
    gaps = low - starts
    fits = np.flatnonzero(gaps >= nbytes)
    if fits.size:
        return int(starts[fits[np.argmin(gaps[fits])]])
    return int(high[-1])
