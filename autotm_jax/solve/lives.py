"""When every buffer of a plan is there, as finely as it is known.

Lives are counted in *moments*. Every segment has one in which stores end before it, if
any do, one when it is reached, those of the `Timeline` of each value that is computed
again apart from it, and those of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict

import numpy as np

from ..timeline import Timeline
from .checker import Replay
from .problem import Problem


# What XLA counts for a copy between the memories where it begins and where it is done:
# its context, which begins and ends, and the buffer on the device, which does one of
# the two.
_TICKS_OF_A_STORE = 1, 2
_TICKS_OF_A_FETCH = 2, 1


@dataclasses.dataclass(eq=False)
class Buffer:
    """A part of the allocation while values live in it.

    - `nbytes`: its size.
    - `first`, `end`: from segment `first` until before segment `end`.
    - `born`, `dead`: the same in moments.
    - `handed`: the moment at which what was made first in it is overwritten, if ever.
    """

    nbytes: int
    first: int
    end: int
    born: int
    dead: int
    handed: int = 2**62


class Lives:
    """The lives of all buffers of a plan.

    - `buffers`: all of them.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.
    """

    def __init__(self, problem: Problem, replayed: Replay):
        self.problem, self.replayed = problem, replayed
        self._tensors = {t.value: t for t in problem.tensors}
        self._timelines = [self._timeline(k) for k in range(problem.segments)]
        self._apart = self._computed_apart()
        # Nothing is brought to a segment before what leaves at its cut is gone.
        self._leaving = {end for _, _, end in replayed.stored if end < problem.segments}
        moments = (self._moments(k) for k in range(problem.segments))
        self._begin = list(itertools.accumulate(moments, initial=0))
        # By segment, what it makes, what is computed again for it, what ends there.
        self._made: dict[int, list[tuple[int, Buffer]]] = defaultdict(list)
        self._again: dict[int, list[tuple[int, Buffer]]] = defaultdict(list)
        self._ending: dict[int, list[tuple[int, Buffer]]] = defaultdict(list)
        # What takes the place of something that is carried.
        self._taking: set[int] = set()
        # Results that took the place of an operand, by `id`, with that buffer.
        self._heirs: dict[int, Buffer] = {}
        self.buffers = self._all()

    def ticks(self) -> np.ndarray:
        """Ticks until each moment; a segment that does not tell them has one."""
        passed = np.ones(self._begin[-1] + 1, dtype=np.int64)
        passed[0] = 0
        for k, timeline in enumerate(self._timelines):
            start = self._reached(k) + 2
            passed[self._begin[k] + 1 : start] = 0  # but for copies
            if timeline is None and not self._apart[k]:
                passed[start - 1] = 1  # its only moment
            for _, apart in self._apart[k]:
                passed[start : start + apart.moments] = apart.ticks
                start += apart.moments
            if timeline is not None:
                passed[start : start + timeline.moments] = timeline.ticks
        for _, first, end in self.replayed.fetched:
            begun, done = _TICKS_OF_A_FETCH
            passed[self._reached(first) + 1] += begun
            passed[self._reached(end) + 1] += done
        for _, first, end in self.replayed.stored:
            begun, done = _TICKS_OF_A_STORE
            waits = first == end
            passed[self._left(end) if waits else self._reached(first) + 1] += begun
            passed[self._left(end)] += done
        return np.cumsum(passed)

    def _timeline(self, segment: int) -> Timeline | None:
        variant = self.replayed.picked.get(segment, 0)
        if variant:
            return self.problem.variants[segment][variant - 1].timeline
        return self.problem.timelines.get(segment)

    def _computed_apart(self) -> dict[int, list[tuple[int, Timeline]]]:
        # In program order, as it is emitted.
        found: dict[int, list[tuple[int, Timeline]]] = defaultdict(list)
        position = {value: i for i, value in enumerate(self._tensors)}
        for value, k in sorted(self.replayed.again, key=lambda a: position[a[0]]):
            timeline = self.problem.apart.get((value, k))
            if timeline is not None:
                found[k].append((value, timeline))
        return found

    def _moments(self, k: int) -> int:
        timeline = self._timelines[k]
        apart = sum(t.moments for _, t in self._apart[k])
        itself = min(apart, 1) if timeline is None else timeline.moments
        return (k in self._leaving) + 1 + apart + itself

    def _reached(self, k: int) -> int:
        # The moment in which a segment is reached, or the step is over.
        return self._begin[k] + (k in self._leaving)

    def _left(self, end: int) -> int:
        # The moment until which stores last that are done before a segment.
        return min(self._begin[end] + 1, self._begin[-1])

    def _all(self) -> list[Buffer]:
        problem, replayed = self.problem, self.replayed
        stays: list[Buffer] = []
        others = [self._buffer(*small) for small in problem.small]
        for value, first, end in replayed.stacks:
            others.append(self._buffer(self._tensors[value].stacked, first, end))
        stored = {(value, end) for value, _, end in replayed.stored}
        for i, (value, first, end) in enumerate(replayed.stays):
            tensor = self._tensors[value]
            buffer = self._buffer(tensor.nbytes, first, end)
            stays.append(buffer)
            takes_place = i in replayed.successors
            # Of what is carried, only what takes its place is stored.
            if (value, end) in stored and (takes_place or tensor.carried is None):
                buffer.dead = self._reached(end)
            elif tensor.maker != end - 1:
                self._ending[end - 1].append((value, buffer))
            if takes_place:
                assert tensor.carried is not None
                self._made[first].append((tensor.carried.result, buffer))
                self._taking.add(tensor.carried.result)
            elif tensor.maker == first:
                self._made[first].append((value, buffer))
            elif (value, first) in replayed.again:
                self._again[first].append((value, buffer))
        # What is left lives inside one segment: its workspace, as far as it is not
        # known better, and what a recomputation or a stream needs.
        every = list(enumerate(self._timelines))
        is_known = [t is not None or bool(self._apart[k]) for k, t in every]
        rest = np.where(is_known, replayed.running, replayed.device)
        rest -= replayed.carried
        for buffer in (*stays, *others):
            rest[buffer.first : buffer.end] -= buffer.nbytes
        for k, timeline in every:
            others += self._refine_apart(k)
            if timeline is not None:
                rest[k] -= replayed.workspace[k]
                others += self._refine(k, timeline)
            if rest[k] >= 1:
                others.append(self._buffer(int(rest[k]), k, k + 1))
        there = [b for b in stays if b.born < b.dead and id(b) not in self._heirs]
        return there + others

    def _buffer(self, nbytes: int, first: int, end: int) -> Buffer:
        return Buffer(nbytes, first, end, self._reached(first), self._begin[end])

    def _refine_apart(self, k: int) -> list[Buffer]:
        """The same as `_refine` for what is computed again before a segment."""
        start = self._reached(k) + 1
        again, ending = dict(self._again[k]), dict(self._ending[k])
        out: list[Buffer] = []
        for _, timeline in self._apart[k]:
            for made, first, handed in timeline.made:
                if made in again:
                    again[made].born = start + first
                    if handed < timeline.moments:
                        again[made].handed = start + handed
            for operand, end in timeline.read:
                if operand in ending:
                    ending[operand].dead = start + end
            out += [
                Buffer(nbytes, k, k + 1, start + first, start + end, start + handed)
                for nbytes, first, handed, end in timeline.own
            ]
            start += timeline.moments
        return out

    def _settle_rivals(
        self,
        k: int,
        timeline: Timeline,
        born: dict[int, tuple[int, int]],
        place_of: dict[int, tuple[int, int]],
    ) -> None:
        """Has the result that ends first take an operand's place, as XLA does.

        Which one that is depends on the plan. Changes what is said of both.
        """
        end = {value: buffer.end for value, buffer in self._made[k]}
        for result in sorted(place_of.keys() & {a for a, _ in timeline.rivals}):
            rivals = [b for a, b in timeline.rivals if a == result and b in born]
            first = min(rivals, key=lambda v: end.get(v, math.inf), default=result)
            if end.get(first, math.inf) < end.get(result, 0):
                place_of[first] = place_of.pop(result)
                born[result] = born.pop(first)

    def _refine(self, k: int, timeline: Timeline) -> list[Buffer]:
        """Writes the moments of a segment into what it makes and reads last.

        Returns the buffers of its own.
        """
        start = self._reached(k) + 1 + sum(t.moments for _, t in self._apart[k])
        never = timeline.moments
        apart = {value for value, _ in self._apart[k]}
        apart.update(made for _, t in self._apart[k] for made, *_ in t.made)
        born = {v: (first, handed) for v, first, handed in timeline.made}
        gone = {v: (handed, end) for v, handed, end in timeline.dying}
        gone.update((v, (never, end)) for v, end in timeline.read)
        place_of = {result: (v, at) for v, result, at in timeline.replaced}
        self._settle_rivals(k, timeline, born, place_of)
        own: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for nbytes, first, handed, end in timeline.own:
            own[nbytes].append((first, handed, end))
        ending = {v: self._heirs.get(id(b), b) for v, b in self._ending[k]}
        for value, buffer in ending.items():
            if value in gone and buffer.end == k + 1:
                handed, end = gone[value]
                buffer.dead = start + end
                if handed < end:
                    buffer.handed = min(buffer.handed, start + handed)
        for value, buffer in (*self._made[k], *self._again[k]):
            is_short = buffer.end == k + 1
            operand, at = place_of.get(value, (-1, 0))
            place = ending.get(operand)
            if value in born:
                first, handed = born[value]
                buffer.born = start + first
                if handed < never:
                    buffer.handed = start + handed
            elif place is not None and place.end == k + 1:
                place.end, place.dead = buffer.end, buffer.dead
                place.handed = min(place.handed, start + at)
                self._heirs[id(buffer)] = place
            elif value in apart or value in gone or value in self._taking:
                continue
            elif is_short and own[buffer.nbytes]:
                first, handed, end = own[buffer.nbytes].pop()
                buffer.born, buffer.dead = start + first, start + end
                buffer.handed = start + handed
            elif (value, buffer) in self._made[k]:
                # If nobody reads it, it is not made.
                buffer.born = buffer.dead if is_short else start
        return [
            Buffer(nbytes, k, k + 1, start + first, start + end, start + handed)
            for nbytes, lives in own.items()
            for first, handed, end in lives
        ]
