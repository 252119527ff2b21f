"""Plans that need no solver: what a person would write down."""

from __future__ import annotations

import dataclasses
import enum
import graphlib
import heapq
import itertools
import time
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from .carried import on_host
from .checker import replay
from .problem import Link, Problem, Tensor
from .schedule import Fetch, Recompute, Schedule, Store


Gap = tuple[int, int]

# From one use to the next, so that there is time to leave and to come back.
_SHORTEST_GAP = 3


def offload_everything(problem: Problem) -> Schedule:
    """Every tensor leaves right after each use and comes back right before the next.

    The least that tensors themselves can hold, at whatever cost in time: gaps of three
    segments or more are spent on the host, and so is the time between steps.

    **Arguments:**

    - `problem`: the placement problem.

    **Returns:**

    A `Schedule`.
    """
    stores: list[Store] = []
    fetches: list[Fetch] = []
    for tensor in problem.tensors:
        if not tensor.movable:
            continue
        if tensor.carried is not None:
            clock = np.concatenate([[0.0], np.cumsum(problem.compute)])
            stored, fetched = on_host(tensor, clock, problem.link, 0.0, _SHORTEST_GAP)
            stores += stored
            fetches += fetched
            continue
        away = _gaps(tensor, tensor.touches)
        if away:
            trips = [tensor.trip(a, b, a + 2, b - 1) for a, b in away]
            stores.append(trips[0][0])
            fetches += [fetch for _, fetch in trips]
    return Schedule(tuple(sorted(stores)), tuple(sorted(fetches)))


def recompute_everything(problem: Problem) -> Schedule:
    """Every tensor with a recipe is dropped after a use, and made again for the next.

    Gaps of three segments or more are bridged so, if what is needed for it is there
    anyway or can be computed again for it, too. Nothing is kept for that alone.

    **Arguments:**

    - `problem`: the placement problem.

    **Returns:**

    A `Schedule`. It breaks no rule but, perhaps, the device limit.
    """
    every = range(len(problem.tensors))
    return _Treatment(problem, dict.fromkeys(every, _Way.RECOMPUTE)).schedule()


def uniform(problem: Problem, seconds: float = float("inf")) -> Schedule | None:
    """A plan that treats tensors that look alike in the same way, in all layers.

    As with the policies of `jax.checkpoint`, a class of tensors stays, is moved or is
    computed again as a whole. In each round the class and the way are taken that cost
    the fewest seconds per byte of what is over the device limit, summed over segments,
    until nothing is. Then classes that turn out not to be needed stay after all.

    **Arguments:**

    - `problem`: the placement problem.
    - `seconds`: wall time to spend at most.

    **Returns:**

    A `Schedule` that passes the checker, or `None` if none is found so.
    """
    deadline = time.perf_counter() + seconds
    unlimited = dataclasses.replace(problem, device_limit=float("inf"))
    pairs = itertools.product(_classes(problem), (_Way.OFFLOAD, _Way.RECOMPUTE))
    # By price. Prices rise as others are taken, so only the lowest are looked at again.
    queue = [(0.0, -np.inf, i, members, way) for i, (members, way) in enumerate(pairs)]
    chosen: list[list[int]] = []
    ways: dict[int, _Way] = {}
    state = replay(unlimited, Schedule())
    while (over := _over(problem, state.device)) > 0:
        if not queue or time.perf_counter() > deadline:
            return None
        _, _, number, members, way = heapq.heappop(queue)
        if members in chosen:
            continue  # in the other way
        trial = ways | dict.fromkeys(members, way)
        found = replay(unlimited, _Treatment(problem, trial).schedule())
        relief = over - _over(problem, found.device)
        if found.faults or relief <= 0:
            continue
        price = max(0.0, found.makespan - state.makespan) / relief
        if queue and (price, -relief) > queue[0][:2]:
            heapq.heappush(queue, (price, -relief, number, members, way))
        else:
            ways, state = trial, found
            chosen.append(members)
    ways = _needed(problem, ways, chosen, deadline)
    schedule = _Treatment(problem, ways).schedule()
    return None if replay(problem, schedule).faults else schedule


def _needed(
    problem: Problem,
    ways: dict[int, _Way],
    chosen: list[list[int]],
    deadline: float,
) -> dict[int, _Way]:
    # Without the classes that others chosen later make needless, first ones first.
    seconds = replay(problem, _Treatment(problem, ways).schedule()).makespan
    for members in chosen:
        if time.perf_counter() > deadline:
            break
        trial = {i: way for i, way in ways.items() if i not in members}
        found = replay(problem, _Treatment(problem, trial).schedule())
        if not found.faults and found.makespan <= seconds:
            ways, seconds = trial, found.makespan
    return ways


def best_policy(problem: Problem, seconds: float) -> tuple[str, Schedule] | None:
    """The fastest of the plans that a person would write down.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `seconds`: wall time to spend at most on one that takes seconds to find.

    **Returns:**

    Its name and the plan, which passes the checker; `None` if none does.
    """
    plans: dict[str, Schedule | None] = {
        "everything stays": Schedule(),
        "everything is offloaded": offload_everything(problem),
        "everything is recomputed": recompute_everything(problem),
    }
    if seconds > 0:
        plans["every layer is treated alike"] = uniform(problem, seconds)
    states = {n: replay(problem, s) for n, s in plans.items() if s is not None}
    sound = {n: state.makespan for n, state in states.items() if not state.faults}
    if not sound:
        return None
    name = min(sound, key=sound.__getitem__)
    found = plans[name]
    assert found is not None
    return name, found


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


class _Way(enum.Enum):
    OFFLOAD = enum.auto()
    RECOMPUTE = enum.auto()


class _Treatment:
    """Tensors (by position) in their ways over all of their gaps, where that can be.

    The others stay.
    """

    def __init__(self, problem: Problem, ways: Mapping[int, _Way]):
        self.problem, self.ways = problem, ways
        tensors = problem.tensors
        roots = {i: t.recipe.roots if t.recipe else () for i, t in enumerate(tensors)}
        self.order = list(graphlib.TopologicalSorter(roots).static_order())
        self.known: dict[tuple[int, int], bool] = {}
        # The gaps between its touches over which a tensor is computed again.
        self.dropped: list[set[Gap]] = [set() for _ in tensors]
        for index in self.order:  # roots first
            if ways.get(index) is _Way.RECOMPUTE:
                gaps = _gaps(tensors[index], tensors[index].touches)
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
            gaps = _gaps(tensor, sorted({*tensor.touches, *reads[index]}))
            moves = self.ways.get(index) is _Way.OFFLOAD and tensor.movable
            if tensor.carried is not None and moves and not reads[index]:
                copies = on_host(tensor, clock, problem.link, 1.0, _SHORTEST_GAP)
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


def _gaps(tensor: Tensor, uses: Sequence[int]) -> list[Gap]:
    # Between uses, if it is long enough to leave and come back.
    return tensor.gaps(uses, _SHORTEST_GAP)


def _classes(problem: Problem) -> list[list[int]]:
    # The same tensor in every layer, by what a problem says about it: bytes, and the
    # seconds that it takes to compute it again where it is wanted.
    classes: dict[Hashable, list[int]] = {}
    for index, tensor in enumerate(problem.tensors):
        gaps = _gaps(tensor, tensor.touches)
        if not gaps and tensor.carried is None:
            continue
        known = tensor.recipe.seconds if tensor.recipe is not None else {}
        seconds = tuple(known.get(use) for _, use in gaps)
        sizes = tensor.nbytes, tensor.stacked, tensor.times
        is_carried = tensor.carried is not None
        kind = sizes, len(tensor.touches), tensor.movable, seconds, is_carried
        classes.setdefault(kind, []).append(index)
    return list(classes.values())


def _over(problem: Problem, device: np.ndarray) -> float:
    return float(np.maximum(0.0, device - problem.device_limit).sum())
