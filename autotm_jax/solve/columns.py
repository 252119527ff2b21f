"""The columns of a boolean program: edges of one flow network per tensor.

Each tensor sends one unit of flow from a source to a sink. Every edge of its network is
one boolean column; what it costs stands in the rows of *lanes*: bytes on the device and
on the host, bytes over the link in each direction, and seconds of recomputation, each
per segment. Which nodes and edges there are is what the formulations differ in.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import numpy as np
import scipy.sparse as sp

from .problem import Problem
from .schedule import Fetch, Recompute, Schedule, Store, Stream


Lane = Literal["device", "host", "out", "in", "again"]
Action = Store | Fetch | Recompute | Stream

# What is farther from a whole number than that is divided.
_WHOLE = 1e-6

# A place, and the segment it belongs to; what is away also has a milestone.
Node = tuple[str, int] | tuple[str, int, int]


@dataclasses.dataclass(frozen=True)
class Edge:
    """The tensor (by position) of a column, and what it decides, if anything."""

    tensor: int
    actions: tuple[Action, ...]


class Columns:
    """The networks of all tensors of a problem and the rows they stand in.

    **Arguments:**

    - `problem`: whose tensors.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.edges: list[Edge] = []
        self.delays: list[float] = []
        self.sources: list[int] = []
        # Columns of which one is taken if a tensor (by position) is on the device at a
        # segment that touches it, or could read it to compute something again.
        self.there: dict[tuple[int, int], list[int]] = {}
        # By tensor that crosses from loop to loop, the column that keeps it in a stack.
        self.stacked: dict[int, int] = {}
        # Where a tensor may be on the host while a segment touches it.
        self.may_stream: set[tuple[int, int]] = set()
        self.recomputations: list[tuple[int, int, int]] = []  # tensor, segment, column
        # By run that makes several tensors and by segment, their columns, by tensor.
        self.runs: dict[tuple[int, int], dict[int, list[int]]] = {}
        self._entries: dict[Lane, list[tuple[int, int, int, float]]] = {
            lane: [] for lane in ("device", "host", "out", "in", "again")
        }
        self._flow: list[tuple[int, int, float]] = []
        self._nodes: dict[tuple[int, Node], int] = {}
        self._goals: list[int | None] = []
        self._leaving: dict[int, list[int]] = {}
        self._born: dict[int, list[int]] = {}
        self._clock = np.concatenate([[0.0], np.cumsum(problem.compute)])

    def _seconds(self, first: int, end: int) -> float:
        return float(self._clock[end] - self._clock[first]) if end > first else 0.0

    def _node(self, tensor: int, node: Node) -> int:
        return self._nodes.setdefault((tensor, node), len(self._nodes))

    def add(
        self, tensor: int, source: Node | None, goal: Node | None, *actions: Action
    ) -> int:
        """A column from node to node; `None` is the source, or the sink."""
        column = len(self.edges)
        self.edges.append(Edge(tensor, actions))
        self.delays.append(sum(self._delay(tensor, a) for a in actions))
        if source is None:
            self.sources.append(column)
            self._born.setdefault(tensor, []).append(column)
        else:
            node = self._node(tensor, source)
            self._flow.append((node, column, -1.0))
            self._leaving.setdefault(node, []).append(column)
        self._goals.append(None if goal is None else self._node(tensor, goal))
        if goal is not None:
            self._flow.append((self._node(tensor, goal), column, 1.0))
        return column

    def _delay(self, tensor: int, action: Action) -> float:
        if not isinstance(action, Store | Fetch):
            return 0.0
        link, found = self.problem.link, self.problem.tensors[tensor]
        bandwidth = link.d2h if isinstance(action, Store) else link.h2d
        first, end = action.window
        seconds = link.delay if end > first else link.alone
        return found.times * seconds(found.nbytes, bandwidth)

    def fill(self, lane: Lane, column: int, first: int, end: int, each: float) -> None:
        """Adds to a lane in the segments `[first, end)`."""
        if end > first:
            self._entries[lane].append((column, first, end, each))

    def again(self, column: int, use: int) -> None:
        """What is computed again before a segment, as the column's tensor is."""
        index = self.edges[column].tensor
        recipe = self.problem.tensors[index].recipe
        assert recipe is not None
        self.recomputations.append((index, use, column))
        if recipe.run is None:
            self.fill("again", column, use, use + 1, recipe.seconds[use])
        else:
            run = self.runs.setdefault((recipe.run, use), {})
            run.setdefault(index, []).append(column)

    def spread(self, lane: Lane, column: int, action: Store | Fetch) -> None:
        """A copy, at the same rate in every second of its window."""
        first, end = action.window
        seconds = self._seconds(first, end)
        link = self.problem.link
        tensor = self.problem.tensors[self.edges[column].tensor]
        nbytes = tensor.times * tensor.nbytes
        if seconds > 0:
            self.fill(lane, column, first, end, nbytes / seconds)
        elif end > first:  # beside segments that take no time
            self.delays[column] += nbytes / (link.d2h if lane == "out" else link.h2d)

    def values(self, lane: Lane) -> sp.csr_array:
        """A lane: segments by columns."""
        row, col, val = [], [], []
        for column, first, end, each in self._entries[lane]:
            row += range(first, end)
            col += [column] * (end - first)
            val += [each] * (end - first)
        shape = (self.problem.segments, len(self.edges))
        return sp.csr_array((val, (row, col)), shape=shape)

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
    def owner(self) -> np.ndarray:
        """The tensor, by position, of every column."""
        return np.array([e.tensor for e in self.edges], dtype=int)

    @functools.cached_property
    def incidence(self) -> sp.csr_array:
        """The incidence matrix: what enters a node minus what leaves it."""
        row, col, val = zip(*self._flow, strict=True) if self._flow else ((), (), ())
        shape = (len(self._nodes), len(self.edges))
        return sp.csr_array((val, (row, col)), shape=shape)

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
                there = self.there.get((root, use), [])
                row += [count] * (1 + len(there))
                col += [column, *there]
                val += [1.0] + [-1.0] * len(there)
                count += 1
        return sp.csr_array((val, (row, col)), shape=(count, len(self.edges)))

    def divided(self, x: np.ndarray) -> np.ndarray:
        """Which tensors a fractional flow divides.

        **Arguments:**

        - `x`: a value per column.

        **Returns:**

        A flag per tensor.
        """
        out = np.zeros(len(self.problem.tensors), dtype=bool)
        out[self.owner[np.abs(x - np.round(x)) > _WHOLE]] = True
        return out

    def main_path(self, tensor: int, x: np.ndarray) -> list[int]:
        """The columns of the path that carries most of a tensor's fractional flow.

        **Arguments:**

        - `tensor`: its position.
        - `x`: a value per column.

        **Returns:**

        The columns.
        """
        path = [max(self._born[tensor], key=x.__getitem__)]
        while (goal := self._goals[path[-1]]) is not None:
            path.append(max(self._leaving[goal], key=x.__getitem__))
        return path

    def decode(self, chosen: np.ndarray) -> Schedule:
        """The schedule that a 0/1 vector of columns stands for."""
        taken = [self.edges[c] for c in np.flatnonzero(chosen > 0.5)]
        actions = [a for e in taken for a in e.actions]
        return Schedule(
            tuple(sorted(a for a in actions if isinstance(a, Store))),
            tuple(sorted(a for a in actions if isinstance(a, Fetch))),
            tuple(sorted(a for a in actions if isinstance(a, Recompute))),
            tuple(sorted(a for a in actions if isinstance(a, Stream))),
        )
