"""The network of a leaf of the step's state, which is carried from step to step.

Its place is on the device, and then nothing is decided about it; or on the host. From
there it is *fetched* where the step reads it, dropped when it is not read for a while
(there is a copy), and what takes its place is stored where it is made. Either way one
unit of flow goes from the source to the sink: over a single edge, or over those of the
copies.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .problem import Carried, Link, Tensor
from .schedule import Fetch, Store


if TYPE_CHECKING:
    from .network import Network


# In a gap of so few segments a copy may begin, or end, at every cut.
_EVERY_CUT = 6

# From one use to the next, so that there is a segment between.
_SHORTEST_GAP = 2

# Stands for the beginning of the step, before its first segment.
_BEGINNING = -1


class CarriedTensor:
    """Adds the columns of such a tensor to the joint program.

    **Arguments:**

    - `net`: the columns.
    - `index`, `tensor`: its position, and itself.
    - `carried`: what becomes of it.
    """

    def __init__(self, net: Network, index: int, tensor: Tensor, carried: Carried):
        self.net, self.index = net, index
        self.tensor, self.carried = tensor, carried
        self.uses = sorted({*tensor.touches, *tensor.optional})
        resident = net.add(index, None, None)
        net.fill("device", resident, 0, carried.segments, tensor.nbytes)
        for use in self.uses:
            net.there.setdefault((index, use), []).append(resident)
        if tensor.movable:
            born = net.add(index, None, ("away", _BEGINNING))
            net.fill("host", born, 0, carried.segments, tensor.nbytes)
            self._read()
            self._replace()

    def _read(self) -> None:
        net, index = self.net, self.index
        last = self.tensor.touches[-1]
        for a in (_BEGINNING, *self.uses):
            for use in self._reachable(a):
                if a == _BEGINNING or use - a >= _SHORTEST_GAP:
                    self._fetch(a, use)
        for a, b in zip(self.uses, self.uses[1:], strict=False):
            self._arrive(("clean", a), b, a + 1)
            if a < last:
                net.add(index, ("clean", a), ("away", a))
        for use in self.uses:
            if use >= last:
                net.add(index, ("clean", use), ("read", last))

    def _reachable(self, a: int) -> list[int]:
        """Later uses up to the next one that the program makes."""
        later = self.uses[bisect.bisect_right(self.uses, a) :]
        stop = next((b for b in later if b in self.tensor.touches), None)
        return [] if stop is None else [b for b in later if b <= stop]

    def _arrive(
        self, source: tuple[str, int], at: int, first: int, *actions: Fetch
    ) -> int:
        column = self.net.add(self.index, source, ("clean", at), *actions)
        self.net.there.setdefault((self.index, at), []).append(column)
        self.net.fill("device", column, first, at + 1, self.tensor.nbytes)
        return column

    def _fetch(self, a: int, use: int) -> None:
        if use - a <= _EVERY_CUT:
            windows = [*_windows(a + 1, use), (use, use)]
        else:
            windows = self.net.windows_before(a + 1, use, self.tensor)
        for start, end in filter(self._is_open, windows):
            action = Fetch(self.tensor.value, start, use, -1 if end == use else end)
            fetch = self._arrive(("away", a), use, start, action)
            self.net.spread("in", fetch, action)

    def _is_open(self, window: tuple[int, int]) -> bool:
        return all(map(self.tensor.is_open, window))

    def _replace(self) -> None:
        net, index, end = self.net, self.index, self.carried.segments
        read, made = ("read", self.tensor.touches[-1]), self.carried.made
        if not made:
            net.add(index, read, None)
            return
        after = made[-1] + 1
        if end - after < _EVERY_CUT:
            windows = [*_windows(after, end), (after, after)]
        else:
            windows = net.windows_after(made[-1], end, self.tensor)
        for start, done in filter(self._is_open, windows):
            action = Store(
                self.tensor.value, made[-1], done, -1 if start == after else start
            )
            store = net.add(index, read, None, action)
            net.fill("device", store, made[0], done, self.tensor.nbytes)
            net.spread("out", store, action)


def _windows(first: int, last: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(first, last + 1), 2))


def on_host(
    tensor: Tensor, clock: np.ndarray, link: Link, stretch: float, shortest: int
) -> tuple[tuple[Store, ...], tuple[Fetch, ...]]:
    """The copies of a carried tensor whose place is on the host.

    **Arguments:**

    - `tensor`: a tensor that is carried.
    - `clock`: seconds of compute before each segment, and of all.
    - `link`: the connection to the host.
    - `stretch`: time for a copy, as a multiple of what it needs; 0 for one that
        everything waits for.
    - `shortest`: between uses that are fewer segments apart it stays.

    **Returns:**

    Its stores, of which there is one at most, and its fetches.
    """
    assert tensor.carried is not None
    fetches: list[Fetch] = []
    before = _BEGINNING
    for use in tensor.touches:
        if before == _BEGINNING or use - before >= shortest:
            goal = clock[use] - stretch * tensor.nbytes / link.h2d
            start = int(np.searchsorted(clock, goal, side="right")) - 1
            start = max(before + 1, min(start, use - 1)) if stretch else use
            start = tensor.fetched_from(before, use, min(start, use))
            fetches.append(Fetch(tensor.value, start, use))
        before = use
    return _stored(tensor, tensor.carried.made, clock, link, stretch), tuple(fetches)


def _stored(
    tensor: Tensor, made: Sequence[int], clock: np.ndarray, link: Link, stretch: float
) -> tuple[Store, ...]:
    assert tensor.carried is not None
    if not made:
        return ()
    last, end = made[-1], tensor.carried.segments
    goal = clock[last + 1] + stretch * tensor.nbytes / link.d2h
    done = max(last + 1, min(int(np.searchsorted(clock, goal)), end))
    return (Store(tensor.value, last, tensor.stored_by(last, end, done)),)
