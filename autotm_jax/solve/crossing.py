"""The network of a tensor that one loop makes and another one reads.

One iteration stands for all, so what is decided for one is decided for all. The tensor
leaves the first loop after the last segment that reads it there: *stacked* on the
device, to the host, or to nowhere. In the other loop it arrives where it is wanted: as
a slice of the stack, fetched, perhaps by the iteration before, or computed again. If
more than one loop reads it, it arrives in each of them in the same way.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from .columns import Action, Node
from .problem import Crossing, Tensor, first_copy
from .schedule import Fetch, Recompute, Store


if TYPE_CHECKING:
    from .network import Network


class CrossingTensor:
    """Adds the columns of such a tensor to the joint program.

    **Arguments:**

    - `net`: the columns.
    - `index`, `tensor`: its position, and itself.
    - `crossing`: from where to where.
    """

    def __init__(self, net: Network, index: int, tensor: Tensor, crossing: Crossing):
        self.net, self.index = net, index
        self.tensor, self.crossing = tensor, crossing
        uses = sorted({*tensor.touches, *tensor.optional})
        self.made = [k for k in uses if k < crossing.made[1]]
        self.read = [k for k in uses if k >= crossing.read[0]]
        self.last = [k for k in self.made if k in tensor.touches][-1]
        # Uses after which it leaves the first loop. What is computed again there may
        # read it later than the program does.
        self.ends = [k for k in self.made if k >= self.last]
        is_kept = len(self.ends) > 1
        self.leaving: Node = ("made" if is_kept else "fresh", self.last)
        self._make()
        for a in (self.last, *self.read):
            if a in tensor.touches:
                self._leave(a)

    def _hold(self, column: int, first: int, end: int) -> None:
        self.net.fill("device", column, first, end, self.tensor.nbytes)

    def _make(self) -> None:
        net, index = self.net, self.index
        born = net.add(index, None, ("fresh", self.made[0]))
        self._hold(born, self.made[0], self.made[0] + 1)
        net.there.setdefault((index, self.made[0]), []).append(born)
        for a, b in zip(self.made, self.made[1:], strict=False):
            self._stay("fresh", a, b)
        if len(self.ends) > 1:
            for k in self.ends:
                net.add(index, ("fresh", k), self.leaving)
        span, tensor = self.crossing.span, self.tensor
        stacked = net.add(index, self.leaving, ("stacked", self.last))
        net.fill("device", stacked, *span, self.tensor.stacked)
        net.delays[stacked] += self.crossing.seconds
        net.stacked[index] = stacked
        # With a slice of a stack, it is known that there is one, if that matters.
        sliced = "sliced" if self.crossing.later else "fresh"
        for use in self._reachable(self.last):
            slice_ = self._arrive(("stacked", self.last), sliced, use)
            self._hold(slice_, use, use + 1)
        if self.last == tensor.touches[-1]:
            net.add(index, self.leaving, None)
        if tensor.movable:
            self._store(span)
        places = dict.fromkeys(("fresh", sliced))
        places |= {"clean": None} if tensor.movable else {}
        for a, b in zip(self.read, self.read[1:], strict=False):
            for place in places if not tensor.crosses(a, b) else ():
                self._stay(place, a, b)
        for a in self.read if self.crossing.later else ():
            for use in self._reachable(a) if a in tensor.touches else ():
                if tensor.crosses(a, use):
                    slice_ = self._arrive((sliced, a), sliced, use)
                    self._hold(slice_, use, use + 1)
        for at in self.read:
            if at >= tensor.touches[-1]:
                for place in places:
                    net.add(index, (place, at), None)

    def _arrive(self, source: Node, place: str, at: int, *actions: Action) -> int:
        column = self.net.add(self.index, source, (place, at), *actions)
        self.net.there.setdefault((self.index, at), []).append(column)
        return column

    def _stay(self, place: str, a: int, b: int) -> None:
        self._hold(self._arrive((place, a), place, b), a + 1, b + 1)

    def _reachable(self, a: int) -> list[int]:
        """Uses in the other loop up to the next one that the program makes."""
        later = [b for b in self.read if b > a]
        stop = next((b for b in later if b in self.tensor.touches), None)
        return [b for b in later if stop is None or b <= stop]

    def _store(self, span: tuple[int, int]) -> None:
        net, value = self.net, self.tensor.value
        end_of_loop = self.crossing.made[1]
        # A copy may begin while the loop still reads it.
        starts = {self.made[0] + 1, self.last + 1}
        windows = [(s, e) for s in starts for e in range(s + 1, end_of_loop + 1)]
        for first, end in sorted((*windows, (self.last + 1, self.last + 1))):
            if not (self.tensor.is_open(first) and self.tensor.is_open(end)):
                continue
            after = max(a for a in self.made if a < first)
            action = Store(value, after, end, -1 if first == after + 1 else first)
            for k in self.ends:
                store = net.add(self.index, ("fresh", k), ("away", self.last), action)
                self._hold(store, k + 1, end)
                net.fill("host", store, *span, self.tensor.stacked)
                net.spread("out", store, action)
        if self.crossing.is_mirrored:
            self._store_late(span)

    def _store_late(self, span: tuple[int, int]) -> None:
        # By the next iteration. The last one's is not stored: it stays to be read.
        net, value, made = self.net, self.tensor.value, self.crossing.made
        ends = [k for k in range(made[0] + 1, made[1] + 1) if self.tensor.is_open(k)]
        for end, k in itertools.product(ends, self.ends):
            action = Store(value, self.last, end, made[0])
            late = net.add(self.index, ("fresh", k), ("late", self.last), action)
            self._hold(late, k + 1, self.crossing.read[0])
            self._hold(late, made[0], end)
            net.fill("host", late, *span, self.tensor.stacked)
            net.spread("out", late, action)

    def _leave(self, a: int) -> None:
        net, index, tensor = self.net, self.index, self.tensor
        reachable = self._reachable(a)
        recipe = tensor.recipe
        if a >= self.crossing.read[0]:
            if tensor.movable:
                net.add(index, ("clean", a), ("away", a))
        if tensor.movable:
            for use in reachable:
                self._fetch(a, use)
            if a == tensor.touches[-1]:
                net.add(index, ("away", a), None)
        if recipe is None:
            return
        here = self.leaving if a == self.last else ("fresh", a)
        net.add(index, here, ("nowhere", a))
        if a == tensor.touches[-1]:
            net.add(index, ("nowhere", a), None)
        for use in reachable:
            if use not in recipe.seconds:
                continue
            action = Recompute(tensor.value, use)
            again = self._arrive(("nowhere", a), "fresh", use, action)
            if use not in recipe.dissolved:
                self._hold(again, use, use + 1)
            net.again(again, use)

    def _fetch(self, a: int, use: int) -> None:
        first, end = self.crossing.loop_at(use)
        begin = max(first, a + 1)
        here = [("away", start, use) for start in range(begin, use + 1)]
        places = ["away", "late"] if self.crossing.is_mirrored else ["away"]
        if self.tensor.crosses(a, use):
            here += [(p, start, end) for start in range(first, end) for p in places]
        for place, start, done in here:
            if not (self.tensor.is_open(start) and self.tensor.is_open(done)):
                continue
            action = Fetch(self.tensor.value, start, use, -1 if done == use else done)
            # What is fetched again later comes from the host by then.
            arrived = "fresh" if place == "late" else "clean"
            fetch = self._arrive((place, a), arrived, use, action)
            if action.is_ahead and place == "away":
                # What is stored late is still there for the first iteration.
                self.net.delays[fetch] += first_copy(self.tensor, self.net.problem.link)
            self._hold(fetch, first if action.is_ahead else start, use + 1)
            if action.is_ahead:
                self._hold(fetch, start, done)
            self.net.spread("in", fetch, action)
