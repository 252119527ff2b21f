"""What one tensor does under a schedule: where it stays, and what it copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from .problem import Carried, Tensor
from .schedule import Fetch, Store


Interval = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Footprint:
    """The intervals `[first, end)` of segments that a tensor has a part in.

    - `stays`: it is on the device; of what is carried and has its place on the host,
        the last one is that of what takes its place, if that is made.
    - `host`: it is on the host, or on its way there; `None` if it never is.
    - `out`, `into`: it is being copied to the host, or from it; an empty interval for a
        copy that everything waits for.
    - `faults`: rules that are broken, as the ends of sentences about the value.
    - `stack`: a stack of it is on the device, from loop to loop.
    - `ahead`: so many times it is fetched in one iteration of a loop for the next, and
        for the first one before the loop.
    - `is_resident`: it is on the device before, in and after the step.

    On the host there is a stack of it, too, if it crosses from loop to loop.
    """

    stays: tuple[Interval, ...]
    host: Interval | None
    out: tuple[Interval, ...]
    into: tuple[Interval, ...]
    faults: tuple[str, ...]
    stack: Interval | None = None
    ahead: int = 0
    is_resident: bool = False


def footprint(
    tensor: Tensor,
    recomputed: Collection[int],
    reads: Collection[int],
    stores: Sequence[Store],
    fetches: Sequence[Fetch],
    streams: Collection[int] = (),
) -> Footprint:
    """The footprint of a tensor.

    **Arguments:**

    - `tensor`: whose.
    - `recomputed`: segments before which it is computed again.
    - `reads`: segments before which something else is computed again from it.
    - `stores`, `fetches`: of this tensor.
    - `streams`: segments that read or make it on the host.

    **Returns:**

    A `Footprint`.
    """
    if tensor.carried is not None:
        faults = [] if not (recomputed or streams) else ["is there before the step"]
        uses = sorted({*tensor.touches, *reads})
        return _carried(tensor, tensor.carried, uses, stores, fetches, faults)
    return _Walk(tensor, recomputed, reads, stores, fetches, streams).run()


def _carried(
    tensor: Tensor,
    carried: Carried,
    uses: Sequence[int],
    stores: Sequence[Store],
    fetches: Sequence[Fetch],
    faults: list[str],
) -> Footprint:
    # Without copies it stays on the device; with copies its place is on the host.
    whole = 0, carried.segments
    if not stores and not fetches:
        return Footprint((), None, (), (), tuple(faults), is_resident=True)
    if not tensor.movable:
        faults.append("moves, but is not movable")
    windows = [c.window for c in (*stores, *fetches)]
    if not all(tensor.is_open(cut) for window in windows for cut in window):
        faults.append("is copied in the middle of a loop that it is not in")
    if len(stores) != bool(carried.made):
        faults.append("is not stored once, though its place is on the host")
    arrivals = {f.use: f for f in fetches}
    if len(arrivals) < len(fetches):
        faults.append("is fetched twice for one segment")
    stays: list[Interval] = []
    start, before = None, -1
    for use in sorted({*uses, *arrivals}):
        if use in arrivals:
            first, end = arrivals[use].window
            if not before < first <= end <= use:
                faults.append(f"is fetched for {use} outside of its gap")
            if start is not None:
                stays.append((start, before + 1))
            start = first
        elif start is None:
            faults.append(f"is on the host when segment {use} uses it")
            start = use
        before = use
    if start is not None:
        stays.append((start, before + 1))
    for store in stores:
        first, end = store.window
        last = carried.made[-1] if carried.made else -1
        if store.after != last or not last < first <= end <= carried.segments:
            faults.append("is stored when what takes its place is not made")
        if carried.made:
            stays.append((carried.made[0], max(last + 1, end)))
    return Footprint(
        tuple(stays),
        whole,
        tuple(s.window for s in stores),
        tuple(f.window for f in fetches),
        tuple(faults),
    )


class _Walk:
    """From each use of a tensor to the next."""

    def __init__(
        self,
        tensor: Tensor,
        recomputed: Collection[int],
        reads: Collection[int],
        stores: Sequence[Store],
        fetches: Sequence[Fetch],
        streams: Collection[int],
    ):
        self.tensor, self.recomputed = tensor, recomputed
        self.stores, self.fetches, self.streams = stores, fetches, set(streams)
        self.faults: list[str] = []
        self.stays: list[Interval] = []
        self.stack: Interval | None = None
        self.arrivals: dict[int, Fetch | None] = dict.fromkeys(recomputed)
        for fetch in fetches:
            if fetch.use in self.arrivals:
                self.faults.append(f"arrives twice at segment {fetch.use}")
            self.arrivals[fetch.use] = fetch
        self.uses = sorted({*tensor.touches, *reads, *self.arrivals})
        self.leaves = {s.after: s for s in stores}
        self._check(reads)
        made_there = self.uses[0] in self.streams
        written = [s.done for s in stores] + [self.uses[0] + 1] * made_there
        self.on_host_from = min(written, default=None)

    def _check(self, reads: Collection[int]) -> None:
        tensor, faults = self.tensor, self.faults
        if (self.stores or self.fetches or self.streams) and not tensor.movable:
            faults.append("moves, but is not movable")
        if len(self.stores) + (self.uses[0] in self.streams) > 1:
            faults.append("is written to the host more than once")
        for store in self.stores:
            first, end = store.window
            if store.is_late:
                self._check_late(store)
            elif store.after not in self.uses or not store.after < first <= end:
                faults.append("is stored when it is not on the device")
            if tensor.crossing is not None and end > tensor.crossing.made[1]:
                faults.append("is stored after the loop that makes it")
        for at in sorted(self.streams):
            if at not in tensor.touches:
                faults.append(f"is streamed at {at}, which does not touch it")
            elif at in reads or at in self.arrivals:
                faults.append(f"is wanted on the device at {at}, and streamed there")
        if self.uses[0] != tensor.touches[0]:
            faults.append("is used before it is made")
        windows = [c.window for c in (*self.stores, *self.fetches)]
        if not all(tensor.is_open(cut) for window in windows for cut in window):
            faults.append("is copied in the middle of a loop that it is not in")
        if not all(map(tensor.is_open, self.recomputed)):
            faults.append("is computed again in a loop that it is not in")
        if tensor.crossing is not None:
            loops = (tensor.crossing.made, *tensor.crossing.readers)
            at = {k for first, end in loops for k in range(first, end)}
            if not at.issuperset(self.recomputed):
                faults.append("is computed again outside of its loops")

    def _check_late(self, store: Store) -> None:
        crossing = self.tensor.crossing
        first, end = store.window
        made = (-1, -1) if crossing is None or crossing.later else crossing.made
        if not made[0] == first < end <= made[1]:
            self.faults.append("is stored by the next iteration of no loop")
        elif not all(f.is_ahead for f in self.fetches):
            # The last iteration's is not stored at all: the loop that reads it begins
            # with that.
            self.faults.append("is stored late, but not fetched ahead")

    def run(self) -> Footprint:
        # `start` is when it came to the device, or None while it is on the host.
        start = None if self.uses[0] in self.streams else self.uses[0]
        for a, b in zip(self.uses, [*self.uses[1:], None], strict=True):
            start = self._go(a, b, start)
        recipe = self.tensor.recipe
        if recipe is not None:
            dissolved = recipe.dissolved.intersection(self.recomputed)
            for k in dissolved:
                if (k, k + 1) in self.stays:  # what is fetched ahead may be there, too
                    self.stays.remove((k, k + 1))
        return Footprint(
            tuple(self.stays),
            self._host(),
            tuple(s.window for s in self.stores),
            tuple(f.window for f in self.fetches),
            tuple(self.faults),
            self.stack,
            # What is stored late is still there for the first one.
            sum(f.is_ahead for f in self.fetches)
            * (not any(s.is_late for s in self.stores)),
        )

    def _go(self, a: int, b: int | None, start: int | None) -> int | None:
        """From one use to the next: since when it is on the device then."""
        if b is not None and self.tensor.crosses(a, b):
            return self._cross(a, b, start)
        is_streamed = b in self.streams
        stays = b is not None and b not in self.arrivals and not is_streamed
        if stays and start is not None:
            is_early = b is not None and a in self.leaves and self.leaves[a].done > b
            if is_early and self.tensor.crossing is None:
                self.faults.append("is still being stored when it is used")
            return start
        if start is not None:
            self.stays.append((start, self._gone_after(a)))
        elif a in self.leaves:
            self.faults.append("is stored when it is not on the device")
        if b is None:
            return None
        if is_streamed:
            if self.on_host_from is None or self.on_host_from > b:
                self.faults.append(f"is streamed at {b} before it is stored")
            return None
        if stays:
            self.faults.append(f"is on the host when segment {b} uses it")
            return b
        arrival = self.arrivals[b]
        if arrival is None:
            # Computed again for segment b: made before b, so not there while the
            # roots of earlier recomputations are read.
            return b
        first, end = arrival.window
        if not a < first <= end <= b or not self._is_in_loop(first, b):
            self.faults.append(f"is fetched for {b} outside of its gap")
        if self.on_host_from is None or self.on_host_from > first:
            self.faults.append(f"is fetched for {b} before it is stored")
        return first

    def _gone_after(self, a: int) -> int:
        """When it is gone from the device if it leaves after a use."""
        ends = [s.done for s in self.stores if s.after <= a and not s.is_late]
        if self.tensor.crossing is not None and any(s.is_late for s in self.stores):
            # The next iteration stores it; of the last, until it is read.
            ends.append(self.tensor.crossing.read[0])
        return max([a + 1, *ends])

    def _is_in_loop(self, cut: int, use: int) -> bool:
        crossing = self.tensor.crossing
        if crossing is None:
            return True
        first, end = crossing.loop_at(use)
        return crossing.read[0] <= first <= cut <= end

    def _cross(self, a: int, b: int, start: int | None) -> int | None:
        """From the last use in one loop to the first in another one."""
        crossing = self.tensor.crossing
        assert crossing is not None
        if start is not None:
            self.stays.append((start, self._gone_after(a)))
            late = (s.done for s in self.stores if s.is_late)
            self.stays += [(crossing.made[0], done) for done in late]
        if b not in self.arrivals:
            self.stack = crossing.span
            return b
        arrival = self.arrivals[b]
        if arrival is None:
            return b
        first, end = arrival.window
        begin, over = crossing.loop_at(b)
        ends_well = end == over if arrival.is_ahead else end <= b
        if not begin <= first <= end or not ends_well:
            self.faults.append(f"is fetched for {b} outside of its loop")
        if self.on_host_from is None:
            self.faults.append(f"is fetched for {b} before it is stored")
        if not arrival.is_ahead:
            return first
        self.stays.append((first, end))
        return begin

    def _host(self) -> Interval | None:
        if self.tensor.crossing is not None:
            return self.tensor.crossing.span if self.stores else None
        first_touch = self.uses[0]
        if first_touch in self.streams:
            begin = first_touch
        elif self.stores:
            begin = self.stores[0].window[0]
        else:
            return None
        # Where everything waits, stores come before fetches.
        windows = [f.window for f in self.fetches]
        ends = [end + 1 if first == end else end for first, end in windows]
        ends += [s.done for s in self.stores]
        ends += [k + 1 for k in self.streams]
        return begin, max(ends)
