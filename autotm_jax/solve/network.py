"""The networks of the joint program: AutoTM's, with one more place to be.

At a touch a tensor is *fresh* (on the device, no copy on the host) or *clean* (a copy
exists). After a mandatory touch it may also leave: to the host (`away`) or to
`nowhere`, and come back at any later touch that no mandatory one precedes. Where a
segment can read it on the host, it may be there at a touch, too.

AutoTM's DRAM_PRE, DRAM and PMEM are `fresh`, `clean` and `away`.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import numpy as np

from .carried import CarriedTensor
from .columns import Action, Columns, Node
from .crossing import CrossingTensor
from .problem import Problem, Tensor
from .schedule import Fetch, Recompute, Store, Stream


# A copy may take as long as it needs to hide behind compute, or somewhat longer, in
# which case it leaves room for others on the link. Not much longer: inside its window
# XLA starts a copy when it likes, and it likes late. Seen on an H100: 512 MiB with a
# window of 20 ms started 5 ms before its end, and the step waited for the other 5.
_STRETCHES = (1.1, 1.5, 2.0)

# In a gap of so few segments there is a column for every window.
_EVERY_WINDOW = 6

# From one touch to the next, so that there is a segment between.
_SHORTEST_GAP = 2

# Gaps that hold fewer byte-seconds than this fraction of the largest one are not
# worth leaving the device for.
_SMALLEST_GAP = 1 / 500


class Network(Columns):
    """The columns of the joint program.

    **Arguments:**

    - `problem`: the placement problem. Its limits are not used.
    """

    def __init__(self, problem: Problem):
        super().__init__(problem)
        weights = [self._weight(t) for t in problem.tensors]
        self._threshold = _SMALLEST_GAP * max(weights, default=0.0)
        for index, tensor in enumerate(problem.tensors):
            if tensor.carried is not None:
                CarriedTensor(self, index, tensor, tensor.carried)
            elif tensor.crossing is not None:
                CrossingTensor(self, index, tensor, tensor.crossing)
            else:
                _Tensor(self, index, tensor)

    def _weight(self, tensor: Tensor) -> float:
        pairs = zip(tensor.touches, tensor.touches[1:], strict=False)
        longest = max((self._seconds(a + 1, b) for a, b in pairs), default=0.0)
        return tensor.stacked * longest

    def pays(self, tensor: Tensor, a: int, b: int) -> bool:
        """Whether a gap of a tensor is worth leaving the device for."""
        held = tensor.nbytes * self._seconds(a + 1, b)
        return b - a >= _SHORTEST_GAP and held >= self._threshold > 0

    def middle(self, a: int, b: int) -> int:
        """A cut about half of the seconds from the end of segment `a` to `b`."""
        half = (self._clock[a + 1] + self._clock[b]) / 2
        cut = int(np.searchsorted(self._clock, half))
        return max(a + 1, min(max(cut, a + 2), b - 1))

    def windows_after(
        self, a: int, limit: int, tensor: Tensor
    ) -> list[tuple[int, int]]:
        """Windows for a store that starts when segment `a` ends."""
        need = tensor.times * tensor.nbytes / self.problem.link.d2h
        ends = {a + 1}
        for stretch in _STRETCHES:
            goal = self._clock[a + 1] + stretch * need
            cut = min(max(int(np.searchsorted(self._clock, goal)), a + 2), limit)
            ends.add(tensor.stored_by(a, limit, cut))
        return [(a + 1, end) for end in sorted(ends)]

    def windows_before(
        self, limit: int, b: int, tensor: Tensor
    ) -> list[tuple[int, int]]:
        """Windows for a fetch that ends when segment `b` begins."""
        need = tensor.times * tensor.nbytes / self.problem.link.h2d
        starts = {b}
        for stretch in _STRETCHES:
            goal = self._clock[b] - stretch * need
            cut = int(np.searchsorted(self._clock, goal, side="right")) - 1
            cut = max(min(cut, b - 1), limit)
            starts.add(max(limit, tensor.fetched_from(limit - 1, b, cut)))
        return [(start, b) for start in sorted(starts)]


class _Tensor:
    """The network of one tensor."""

    def __init__(self, net: Network, index: int, tensor: Tensor):
        self.net, self.index, self.tensor = net, index, tensor
        self.uses = sorted({*tensor.touches, *tensor.optional})
        self.streams = {
            k
            for k in tensor.touches
            for configuration in net.problem.configurations.get(k, ())
            if tensor.movable and index in configuration.host
        }
        net.may_stream.update((index, k) for k in self.streams)
        # What was streamed may be wanted on the device right afterwards.
        self.shortest = 1 if self.streams else _SHORTEST_GAP
        self.departures = [a for a in tensor.touches if self._leaves(a)]
        returns = bool(self.departures) and tensor.movable
        self.places = ("fresh", "clean") if returns else ("fresh",)
        self._stay()
        for a in self.departures:
            self._depart(a)

    def _leaves(self, a: int) -> bool:
        if self.streams:
            return True
        later = self.uses[bisect.bisect_right(self.uses, a) :]
        mandatory = [b for b in later if b in self.tensor.touches]
        return bool(later) and self.net.pays(self.tensor, a, (mandatory or later)[0])

    def _arrive(
        self, source: Node | None, place: str, at: int, *actions: Action
    ) -> int:
        column = self.net.add(self.index, source, (place, at), *actions)
        self.net.there.setdefault((self.index, at), []).append(column)
        return column

    def _stay(self) -> None:
        net, nbytes, first = self.net, self.tensor.nbytes, self.uses[0]
        born = self._arrive(None, "fresh", first)
        net.fill("device", born, first, first + 1, nbytes)
        for a, b in zip(self.uses, self.uses[1:], strict=False):
            for place in self.places:
                stay = self._arrive((place, a), place, b)
                net.fill("device", stay, a + 1, b + 1, nbytes)
                if place == "clean" and any(d > a for d in self.departures):
                    net.fill("host", stay, a + 1, b + 1, nbytes)
        for at in self.uses:
            if at >= self.tensor.touches[-1]:
                for place in self.places:
                    net.add(self.index, (place, at), None)
        if first in self.streams:
            made = Stream(self.tensor.value, first)
            away = net.add(self.index, None, self._away(first), made)
            net.fill("host", away, first, self._away(first)[-1], nbytes)

    def _reachable(self, a: int) -> tuple[list[int], int | None]:
        """Later uses up to the next mandatory one, and that."""
        later = self.uses[bisect.bisect_right(self.uses, a) :]
        stop = next((b for b in later if b in self.tensor.touches), None)
        return [b for b in later if stop is None or b <= stop], stop

    def _milestones(self, a: int) -> list[int]:
        """Cuts after segment `a` at which the tensor can be waiting on the host."""
        reachable, _ = self._reachable(a)
        if not reachable:
            return [a + 1]
        if reachable[-1] - a <= _EVERY_WINDOW:
            return self._open(range(a + 1, reachable[-1] + 1))
        distant = [b for b in reachable if b - a >= self.shortest]
        middle = self.net.middle(a, distant[0])
        return [self.tensor.fetched_from(a, distant[0], middle)]

    def _open(self, cuts: Iterable[int]) -> list[int]:
        return [c for c in cuts if self.tensor.is_open(c)]

    def _away(self, a: int) -> Node:
        return "away", a, self._milestones(a)[0]

    def _depart(self, a: int) -> None:
        net, index = self.net, self.index
        reachable, stop = self._reachable(a)
        if self.tensor.movable:
            self._wait(a, reachable, stop)
        recipe = self.tensor.recipe
        if recipe is None and stop is not None:
            return
        # What has a copy on the host goes back there instead: it is written once.
        net.add(index, ("fresh", a), ("nowhere", a))
        if stop is None:
            net.add(index, ("nowhere", a), None)
        for use in reachable:
            if recipe is None or use not in recipe.seconds:
                continue
            action = Recompute(self.tensor.value, use)
            again = self._arrive(("nowhere", a), "fresh", use, action)
            if use not in recipe.dissolved:
                net.fill("device", again, use, use + 1, self.tensor.nbytes)
            net.again(again, use)

    def _wait(self, a: int, reachable: list[int], stop: int | None) -> None:
        """To the host after segment `a`, from milestone to milestone, and back."""
        net, index, nbytes = self.net, self.index, self.tensor.nbytes
        cuts = self._milestones(a)
        away: list[Node] = [("away", a, cut) for cut in cuts]
        for here, there in zip(away, away[1:], strict=False):
            wait = net.add(index, here, there)
            net.fill("host", wait, here[-1], there[-1], nbytes)
        clean = net.add(index, ("clean", a), away[0])
        net.fill("host", clean, a + 1, cuts[0], nbytes)
        if stop is None:
            for node in away[-1:]:
                net.add(index, node, None)
        # A touch too near to be worth the way there and back is passed over.
        distant = [b for b in reachable if b - a >= self.shortest]
        last = reachable[-1] if reachable else a
        is_short = last - a <= _EVERY_WINDOW
        if distant:
            limit = min(cuts[-1], distant[0])
            self._store(a, cuts, _all_windows(a + 1, limit) if is_short else None)
        for use in distant:
            self._fetch(a, use, cuts, _all_windows(a + 1, use) if is_short else None)
        if stop in self.streams:
            streamed = Stream(self.tensor.value, stop)
            column = net.add(index, away[-1], self._away(stop), streamed)
            net.fill("host", column, cuts[-1], self._away(stop)[-1], nbytes)

    def _store(
        self, a: int, cuts: list[int], windows: list[tuple[int, int]] | None
    ) -> None:
        net, nbytes = self.net, self.tensor.nbytes
        if windows is None:
            windows = net.windows_after(a, cuts[0], self.tensor)
        else:
            windows.append((a + 1, a + 1))
        for first, end in windows:
            if len(self._open((first, end))) < 2:
                continue
            cut = min(c for c in cuts if c >= end)
            begin = -1 if first == a + 1 else first
            action = Store(self.tensor.value, a, end, begin)
            store = net.add(self.index, ("fresh", a), ("away", a, cut), action)
            net.fill("device", store, a + 1, end, nbytes)
            net.fill("host", store, first, cut, nbytes)
            net.spread("out", store, action)

    def _fetch(
        self, a: int, use: int, cuts: list[int], windows: list[tuple[int, int]] | None
    ) -> None:
        net, nbytes = self.net, self.tensor.nbytes
        if windows is None:
            windows = net.windows_before(cuts[-1], use, self.tensor)
        else:
            windows.append((use, use))
        for first, end in windows:
            if len(self._open((first, end))) < 2:
                continue
            cut = max(c for c in cuts if c <= first)
            action = Fetch(self.tensor.value, first, use, -1 if end == use else end)
            fetch = self._arrive(("away", a, cut), "clean", use, action)
            net.fill("device", fetch, first, use + 1, nbytes)
            # Where everything waits, stores come before fetches; and a copy that the
            # tensor may go back to is kept.
            is_kept = first == end or any(d >= use for d in self.departures)
            net.fill("host", fetch, cut, use + 1 if is_kept else end, nbytes)
            net.spread("in", fetch, action)


def _all_windows(first: int, last: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(first, last) for b in range(a + 1, last + 1)]
