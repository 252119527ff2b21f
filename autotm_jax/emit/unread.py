"""Segments and copies of which nothing is read.

What a segment makes may be computed again before anything reads it: a plan that puts
off its work does so. XLA then leaves the segment out, with the copies that were for it
alone.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping

from .. import compat
from ..solve.schedule import Fetch, Schedule, Store
from ..trace import Fragment, Program


@dataclasses.dataclass(frozen=True)
class Unread:
    """What XLA may leave out of a step, as no result depends on it.

    - `segments`: nothing that they make is read.
    - `copies`: stores and fetches.
    """

    segments: frozenset[int] = frozenset()
    copies: tuple[Store | Fetch, ...] = ()


def unread(program: Program, schedule: Schedule) -> Unread:
    """What XLA may leave out of a step.

    **Arguments:**

    - `program`, `schedule`: what runs, and what is planned.

    **Returns:**

    `Unread`.
    """
    if not schedule.recomputes:
        return Unread()  # nothing is made that is not read
    return _Reading(program, schedule).unread()


class _Reading:
    """What is read, of what segments and recomputations make and copies bring."""

    def __init__(self, program: Program, schedule: Schedule):
        self.program, self.schedule = program, schedule
        variants = {p.segment: p.variant for p in schedule.picks}
        self.bodies = {
            s.index: s.body.by(variants.get(s.index, 0)) for s in program.segments
        }
        self.again = set(schedule.recomputes)
        self.fetches = set(schedule.fetches)
        # What loops take in or give out or leave to one another, and what iterations do
        # for one another, is taken as read.
        nest = program.nest
        self.always = {value for value, _ in nest.borders()}
        self.always.update(
            v for v, at in program.touches().items() if nest.crossing(v, at)
        )
        self.always.update(f.value for f in schedule.fetches if f.is_ahead)
        self.always.update(program.returned)
        self.always.update(s.value for s in schedule.streams)
        self.arrivals: dict[int, set[int]] = defaultdict(set)
        for item in (*schedule.fetches, *schedule.recomputes):
            self.arrivals[item.value].add(item.use)

    def unread(self) -> Unread:
        """Leaves out what is not read, and then what only that has read."""
        while True:
            reads = self._reads()
            count = len(self.bodies) + len(self.again) + len(self.fetches)
            self.bodies = {
                k: body for k, body in self.bodies.items() if self._is_needed(k, reads)
            }
            self.again = {
                r for r in self.again if self._is_read([r.value], r.use, reads)
            }
            self.fetches = {
                f for f in self.fetches if self._is_read([f.value], f.use, reads)
            }
            if count == len(self.bodies) + len(self.again) + len(self.fetches):
                break
        segments = (
            frozenset(s.index for s in self.program.segments) - self.bodies.keys()
        )
        kept = (
            {f.value for f in self.fetches} | self.always | self.program.carried.keys()
        )
        stores = (s for s in self.schedule.stores if s.value not in kept)
        fetches = (f for f in self.schedule.fetches if f not in self.fetches)
        return Unread(segments, (*stores, *fetches))

    def _is_needed(self, k: int, reads: Mapping[int, set[int]]) -> bool:
        body = self.bodies[k]
        eqns = (self.program.equations[i].eqn for i in body.equations)
        if not body.writes or any(map(compat.has_effects, eqns)):
            return True
        return self._is_read(body.writes, k, reads)

    def _reads(self) -> Mapping[int, set[int]]:
        """By value, the segments for which it is read."""
        reads: dict[int, set[int]] = defaultdict(set)
        fragments: list[tuple[int, Fragment]] = list(self.bodies.items())
        recomputations = self.program.recomputations
        fragments += [(r.use, recomputations[r.value]) for r in self.again]
        for k, fragment in fragments:
            for value in fragment.reads:
                reads[value].add(k)
        # Of what is carried, what takes its place is stored.
        stored = {f.value for f in self.fetches} - self.program.carried.keys()
        for store in self.schedule.stores:
            if store.value in stored:
                reads[store.value].add(store.after)
        return reads

    def _is_read(
        self, values: Iterable[int], at: int, reads: Mapping[int, set[int]]
    ) -> bool:
        # Before they are computed again, or fetched.
        for value in values:
            if value in self.always:
                return True
            for read in reads.get(value, ()):
                between = self.arrivals.get(value, ())
                if read >= at and not any(at < k <= read for k in between):
                    return True
        return False
