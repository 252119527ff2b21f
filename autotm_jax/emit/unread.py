"""Copies of which nothing is read.

What a segment makes may be computed again before anything reads it: a plan that puts
off its work does so. XLA then leaves the segment out, with the copies that were for it
alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..solve.schedule import Fetch, Schedule, Store
from ..trace import Fragment, Program


def unread_copies(program: Program, schedule: Schedule) -> tuple[Store | Fetch, ...]:
    """The copies of a plan that XLA may leave out.

    **Arguments:**

    - `program`, `schedule`: what runs, and what is planned.

    **Returns:**

    Stores and fetches, none of which changes a result.
    """
    if not schedule.recomputes:
        return ()  # nothing is made that is not read
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
        # What loops take in or give out, and what iterations do for one another, is
        # taken as read, and so is what takes the place of an argument.
        self.always = {value for value, _ in program.nest.borders()}
        self.always.update(f.value for f in schedule.fetches if f.is_ahead)
        self.always.update(program.returned, program.carried, program.resident)
        self.always.update(s.value for s in schedule.streams)
        self.arrivals: dict[int, set[int]] = defaultdict(set)
        for item in (*schedule.fetches, *schedule.recomputes):
            self.arrivals[item.value].add(item.use)

    def unread(self) -> tuple[Store | Fetch, ...]:
        """Leaves out what is not read, and then what only that has read."""
        while True:
            reads = self._reads()
            count = len(self.bodies) + len(self.again) + len(self.fetches)
            self.bodies = {
                k: body
                for k, body in self.bodies.items()
                if not body.writes or self._is_read(body.writes, k, reads)
            }
            self.again = {
                r for r in self.again if self._is_read([r.value], r.use, reads)
            }
            self.fetches = {
                f for f in self.fetches if self._is_read([f.value], f.use, reads)
            }
            if count == len(self.bodies) + len(self.again) + len(self.fetches):
                break
        kept = {f.value for f in self.fetches} | self.always
        stores = (s for s in self.schedule.stores if s.value not in kept)
        return *stores, *(f for f in self.schedule.fetches if f not in self.fetches)

    def _reads(self) -> dict[int, set[int]]:
        """By value, the segments for which it is read."""
        reads: dict[int, set[int]] = defaultdict(set)
        fragments: list[tuple[int, Fragment]] = list(self.bodies.items())
        recomputations = self.program.recomputations
        fragments += [(r.use, recomputations[r.value]) for r in self.again]
        for k, fragment in fragments:
            for value in fragment.reads:
                reads[value].add(k)
        fetched = {f.value for f in self.fetches}
        for store in self.schedule.stores:
            if store.value in fetched:
                reads[store.value].add(store.after)
        return reads

    def _is_read(
        self, values: Iterable[int], at: int, reads: dict[int, set[int]]
    ) -> bool:
        # Before they are computed again, or fetched.
        for value in values:
            if value in self.always:
                return True
            for read in reads[value]:
                between = self.arrivals[value]
                if read >= at and not any(at < k <= read for k in between):
                    return True
        return False
