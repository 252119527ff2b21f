"""One flow network per tensor, as columns of sparse matrices.

Each tensor sends one unit of flow from its producer to the end of the step. At a touch
it is *fresh* (on the device, no copy on the host) or *clean* (a copy exists). After a
mandatory touch it may also leave: to the host (`away`) or to `nowhere`, and come back
at any later touch that no mandatory one precedes. Every edge of the network is one
boolean column; what it costs is in the rows: bytes on the device and on the host, bytes
over the link in each direction and seconds of recomputation, each per segment.

AutoTM's DRAM_PRE, DRAM and PMEM are `fresh`, `clean` and `away`.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from typing import Literal

import numpy as np
import scipy.sparse as sp

from .problem import Problem, Tensor
from .schedule import Fetch, Recompute, Schedule, Store


Lane = Literal["device", "host", "out", "in", "again"]

# A copy may take as long as it needs to hide behind compute, or somewhat longer, in
# which case it leaves room for others on the link. Not much longer: inside its window
# XLA starts a copy when it likes, and it likes late. Seen on an H100: 512 MiB with a
# window of 20 ms started 5 ms before its end, and the step waited for the other 5.
_STRETCHES = (1.1, 1.5, 2.0)

# Gaps that hold fewer byte-seconds than this fraction of the largest one are not
# worth leaving the device for.
_SMALLEST_GAP = 1 / 500


@dataclasses.dataclass(frozen=True)
class Edge:
    """The tensor (by position) of a column, and what it decides, if anything."""

    tensor: int
    action: Store | Fetch | Recompute | None


class Network:
    """The columns of all tensors of a problem and the rows they stand in."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.edges: list[Edge] = []
        self.delays: list[float] = []
        self._entries: dict[Lane, list[tuple[int, int, int, float]]] = {
            lane: [] for lane in ("device", "host", "out", "in", "again")
        }
        self._flow: list[tuple[int, int, float]] = []
        self._nodes: dict[tuple[int, str, int], int] = {}
        self._goals: list[int | None] = []
        self._leaving: dict[int, list[int]] = {}
        self.sources: list[int] = []
        # Columns that bring a tensor (by position) to the device at a segment.
        self.arrivals: dict[tuple[int, int], list[int]] = {}
        self.recomputations: list[tuple[int, int, int]] = []  # tensor, segment, column
        self._clock = np.concatenate([[0.0], np.cumsum(problem.compute)])
        weights = [self._weight(t) for t in problem.tensors]
        self._threshold = _SMALLEST_GAP * max(weights, default=0.0)
        for index, tensor in enumerate(problem.tensors):
            self._add_tensor(index, tensor)

    def _weight(self, tensor: Tensor) -> float:
        pairs = zip(tensor.touches, tensor.touches[1:], strict=False)
        longest = max((self._seconds(a + 1, b) for a, b in pairs), default=0.0)
        return tensor.nbytes * longest

    def _seconds(self, first: int, end: int) -> float:
        return float(self._clock[end] - self._clock[first]) if end > first else 0.0

    def _node(self, tensor: int, place: str, at: int) -> int:
        return self._nodes.setdefault((tensor, place, at), len(self._nodes))

    def _add(
        self,
        tensor: int,
        source: tuple[str, int] | None,
        goal: tuple[str, int] | None,
        action: Store | Fetch | Recompute | None = None,
    ) -> int:
        column = len(self.edges)
        self.edges.append(Edge(tensor, action))
        self.delays.append(self._delay(tensor, action))
        if source is None:
            self.sources.append(column)
        else:
            node = self._node(tensor, *source)
            self._flow.append((node, column, -1.0))
            self._leaving.setdefault(node, []).append(column)
        self._goals.append(None if goal is None else self._node(tensor, *goal))
        if goal is not None:
            self._flow.append((self._node(tensor, *goal), column, 1.0))
            if goal[0] in ("fresh", "clean"):
                self.arrivals.setdefault((tensor, goal[1]), []).append(column)
        return column

    def _delay(self, tensor: int, action: Store | Fetch | Recompute | None) -> float:
        link, nbytes = self.problem.link, self.problem.tensors[tensor].nbytes
        if isinstance(action, Store):
            return link.delay(nbytes, link.d2h)
        return link.delay(nbytes, link.h2d) if isinstance(action, Fetch) else 0.0

    def _fill(self, lane: Lane, column: int, first: int, end: int, each: float) -> None:
        if end > first:
            self._entries[lane].append((column, first, end, each))

    def _add_tensor(self, index: int, tensor: Tensor) -> None:
        touches = sorted({*tensor.touches, *tensor.optional})
        mandatory = set(tensor.touches)
        nbytes = tensor.nbytes
        first = touches[0]
        born = self._add(index, None, ("fresh", first))
        self._fill("device", born, first, first + 1, nbytes)
        departures = [a for a in tensor.touches if self._leaves(tensor, a, touches)]
        returns = bool(departures) and tensor.movable
        places = ("fresh", "clean") if returns else ("fresh",)
        for a, b in zip(touches, touches[1:], strict=False):
            for place in places:
                stay = self._add(index, (place, a), (place, b))
                self._fill("device", stay, a + 1, b + 1, nbytes)
                if place == "clean" and any(d > a for d in departures):
                    self._fill("host", stay, a + 1, b + 1, nbytes)
        last_mandatory = max(mandatory)
        for at in touches:
            if at >= last_mandatory:
                for place in places:
                    self._add(index, (place, at), None)
        for a in departures:
            self._depart(index, tensor, a, touches, mandatory, places)

    def _leaves(self, tensor: Tensor, a: int, touches: list[int]) -> bool:
        later = [b for b in tensor.touches if b > a]
        later += [b for b in touches if b > a and not later]
        if not later:
            return False
        gap = self._seconds(a + 1, later[0])
        return later[0] - a > 2 and tensor.nbytes * gap >= self._threshold > 0

    def _depart(
        self,
        index: int,
        tensor: Tensor,
        a: int,
        touches: list[int],
        mandatory: set[int],
        places: tuple[str, ...],
    ) -> None:
        later = touches[bisect.bisect_right(touches, a) :]
        stop = next((b for b in later if b in mandatory), None)
        reachable = [b for b in later if stop is None or b <= stop]
        value, nbytes = tensor.value, tensor.nbytes
        # A touch too near to be worth the way there and back is passed over.
        distant = [b for b in reachable if b - a > 2]
        if tensor.movable and distant:
            middle = self._middle(a, distant[0])
            for done in self._windows_after(a, middle, nbytes):
                action = Store(value, a, done)
                store = self._add(index, ("fresh", a), ("away", a), action)
                self._fill("device", store, a + 1, done, nbytes)
                self._spread("out", store, a + 1, done, nbytes)
            self._add(index, ("clean", a), ("away", a))
            for use in distant:
                for start in self._windows_before(middle, use, nbytes):
                    action = Fetch(value, start, use)
                    fetch = self._add(index, ("away", a), ("clean", use), action)
                    self._fill("device", fetch, start, use + 1, nbytes)
                    self._fill("host", fetch, a + 1, use, nbytes)
                    self._spread("in", fetch, start, use, nbytes)
            if stop is None:
                self._add(index, ("away", a), None)
        recipe = tensor.recipe
        if recipe is None and stop is not None:
            return
        for place in places:
            self._add(index, (place, a), ("nowhere", a))
        if stop is None:
            self._add(index, ("nowhere", a), None)
        for use in reachable:
            if recipe is None or use not in recipe.seconds:
                continue
            action = Recompute(value, use)
            again = self._add(index, ("nowhere", a), ("fresh", use), action)
            if use not in recipe.dissolved:
                self._fill("device", again, use, use + 1, nbytes)
            self._fill("again", again, use, use + 1, recipe.seconds[use])
            self.recomputations.append((index, use, again))

    def _middle(self, a: int, b: int) -> int:
        half = (self._clock[a + 1] + self._clock[b]) / 2
        cut = int(np.searchsorted(self._clock, half))
        return min(max(cut, a + 2), b - 1)

    def _windows_after(self, a: int, limit: int, nbytes: int) -> list[int]:
        need = nbytes / self.problem.link.d2h
        ends = set()
        for stretch in _STRETCHES:
            goal = self._clock[a + 1] + stretch * need
            ends.add(min(max(int(np.searchsorted(self._clock, goal)), a + 2), limit))
        return sorted(ends)

    def _windows_before(self, limit: int, use: int, nbytes: int) -> list[int]:
        need = nbytes / self.problem.link.h2d
        starts = set()
        for stretch in _STRETCHES:
            goal = self._clock[use] - stretch * need
            cut = int(np.searchsorted(self._clock, goal, side="right")) - 1
            starts.add(max(min(cut, use - 1), limit))
        return sorted(s for s in starts if s < use)

    def _spread(
        self, lane: Lane, column: int, first: int, end: int, nbytes: int
    ) -> None:
        seconds = self._seconds(first, end)
        if seconds > 0:
            self._fill(lane, column, first, end, nbytes / seconds)

    def changes(self, lane: Lane) -> sp.csr_array:
        """How a lane changes from each segment to the next: segments by columns.

        An edge holds its bytes (or its bytes per second of compute, for the link)
        over an interval of segments, so it has two entries here, where the lane
        itself would have one per segment. It is what keeps the program sparse.
        """
        row, col, val = [], [], []
        for column, first, end, each in self._entries[lane]:
            row.append(first)
            col.append(column)
            val.append(each)
            if end < self.problem.segments:
                row.append(end)
                col.append(column)
                val.append(-each)
        shape = (self.problem.segments, len(self.edges))
        return sp.csr_array((val, (row, col)), shape=shape)

    @property
    def nodes(self) -> int:
        """The number of nodes of all networks."""
        return len(self._nodes)

    @functools.cached_property
    def incidence(self) -> sp.csr_array:
        """The incidence matrix: what enters a node minus what leaves it."""
        row, col, val = zip(*self._flow, strict=True) if self._flow else ((), (), ())
        shape = (len(self._nodes), len(self.edges))
        return sp.csr_array((val, (row, col)), shape=shape)

    def main_path(self, tensor: int, x: np.ndarray) -> list[int]:
        """The columns of the path that carries most of a tensor's fractional flow.

        **Arguments:**

        - `tensor`: its position.
        - `x`: a value per column.

        **Returns:**

        The columns.
        """
        path = [self.sources[tensor]]
        while (goal := self._goals[path[-1]]) is not None:
            path.append(max(self._leaving[goal], key=x.__getitem__))
        return path

    def roots(self) -> sp.csr_array:
        """One row per recomputation and root: the one minus the arrivals of the other.

        A product of at most zero says that the root is there.
        """
        row, col, val = [], [], []
        count = 0
        for index, use, column in self.recomputations:
            recipe = self.problem.tensors[index].recipe
            assert recipe is not None
            for root in recipe.roots:
                there = self.arrivals.get((root, use), [])
                row += [count] * (1 + len(there))
                col += [column, *there]
                val += [1.0] + [-1.0] * len(there)
                count += 1
        return sp.csr_array((val, (row, col)), shape=(count, len(self.edges)))

    def decode(self, chosen: np.ndarray) -> Schedule:
        """The schedule that a 0/1 vector of columns stands for."""
        actions = [e.action for e, x in zip(self.edges, chosen, strict=True) if x > 0.5]
        return Schedule(
            tuple(sorted(a for a in actions if isinstance(a, Store))),
            tuple(sorted(a for a in actions if isinstance(a, Fetch))),
            tuple(sorted(a for a in actions if isinstance(a, Recompute))),
        )
