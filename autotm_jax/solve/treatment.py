"""Tensors that are moved, or computed again, over all of their gaps, as a schedule."""

from __future__ import annotations

import enum
import graphlib
from collections.abc import Mapping, Sequence

import numpy as np

from .carried import on_host
from .problem import Link, Problem, Tensor
from .schedule import Fetch, Recompute, Schedule, Store


Gap = tuple[int, int]

SHORTEST_GAP = 3
"""From one use to the next, so that there is time to leave and to come back."""


class Way(enum.Enum):
    """What becomes of a tensor between its uses."""

    OFFLOAD = enum.auto()
    RECOMPUTE = enum.auto()


class Treatment:
    """Tensors in their ways over all of their gaps, where that can be.

    **Arguments:**

    - `problem`: the placement problem.
    - `order`: as `roots_first` has it.
    - `ways`: by position of a tensor. The others stay.
    """

    def __init__(self, problem: Problem, order: Sequence[int], ways: Mapping[int, Way]):
        self.problem, self.order, self.ways = problem, order, ways
        tensors = problem.tensors
        self.known: dict[tuple[int, int], bool] = {}
        # The gaps between its touches over which a tensor is computed again.
        self.dropped: list[set[Gap]] = [set() for _ in tensors]
        for index in order:
            if ways.get(index) is Way.RECOMPUTE:
                gaps = gaps_of(tensors[index], tensors[index].touches)
                self.dropped[index] = {g for g in gaps if self.returns(index, g[1])}

    def returns(self, index: int, use: int) -> bool:
        """Whether a tensor can be computed again for a segment."""
        recipe = self.problem.tensors[index].recipe
        if recipe is None or use not in recipe.seconds:
            return False
        return all(self.is_there(root, use) for root in recipe.roots)

    def is_there(self, index: int, use: int) -> bool:
        """Whether a tensor is there for a segment, or can be brought back for it."""
        if (index, use) not in self.known:
            self.known[index, use] = self._is_there(index, use)
        return self.known[index, use]

    def _is_there(self, index: int, use: int) -> bool:
        tensor = self.problem.tensors[index]
        touches = tensor.touches
        is_over = use > touches[-1] + 2 or tensor.crosses(touches[-1], use)
        if use <= touches[0] or is_over:
            return False  # it would have to be held for nothing else
        if use in touches or not any(a < use < b for a, b in self.dropped[index]):
            return True
        return self.returns(index, use)

    def schedule(self) -> Schedule:
        """The copies and recomputations, of every tensor after those made from it."""
        problem = self.problem
        clock = np.concatenate([[0.0], np.cumsum(problem.compute)])
        reads: list[set[int]] = [set() for _ in problem.tensors]
        stores: list[Store] = []
        fetches: list[Fetch] = []
        recomputes: list[Recompute] = []
        for index in reversed(self.order):
            tensor = problem.tensors[index]
            gaps = gaps_of(tensor, sorted({*tensor.touches, *reads[index]}))
            moves = self.ways.get(index) is Way.OFFLOAD and tensor.movable
            if tensor.carried is not None and moves and not reads[index]:
                copies = on_host(tensor, clock, problem.link, 1.0, SHORTEST_GAP)
                stores += copies[0]
                fetches += copies[1]
            elif moves and gaps:
                copies = [at_leisure(tensor, gap, clock, problem.link) for gap in gaps]
                # Written once: the copy on the host is there from then on.
                stores.append(copies[0][0])
                fetches += [fetch for _, fetch in copies]
            for _, use in gaps:
                if any(a < use <= b for a, b in self.dropped[index]):
                    recomputes.append(Recompute(tensor.value, use))
                    assert tensor.recipe is not None
                    for root in tensor.recipe.roots:
                        reads[root].add(use)
        return Schedule(
            tuple(sorted(stores)), tuple(sorted(fetches)), tuple(sorted(recomputes))
        )


def roots_first(problem: Problem) -> list[int]:
    """The positions of all tensors, those that others are made from before them."""
    tensors = problem.tensors
    roots = {i: t.recipe.roots if t.recipe else () for i, t in enumerate(tensors)}
    return list(graphlib.TopologicalSorter(roots).static_order())


def gaps_of(tensor: Tensor, uses: Sequence[int]) -> list[Gap]:
    """The gaps between uses that are long enough to leave and come back."""
    return tensor.gaps(uses, SHORTEST_GAP)


def at_leisure(
    tensor: Tensor, gap: Gap, clock: np.ndarray, link: Link
) -> tuple[Store, Fetch]:
    """The way to the host and back over a gap, each just long enough to hide.

    **Arguments:**

    - `tensor`, `gap`: what is away, after which segment and until which.
    - `clock`: seconds of compute before each segment, and of all.
    - `link`: the connection to the host.

    **Returns:**

    A `Store` and a `Fetch`.
    """
    a, b = gap
    copy = tensor.times * tensor.nbytes * (1 / link.d2h + 1 / link.h2d) / 2
    hidden = int(np.searchsorted(clock, clock[a + 1] + copy))
    done = min(max(hidden, a + 2), b - 1)
    ahead = int(np.searchsorted(clock, clock[b] - copy)) - 1
    start = max(min(ahead, b - 1), done)
    return tensor.trip(a, b, done, start)
