"""A plan without a solver: relieve the worst segment, cheapest choice first."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np

from .carried import on_host
from .checker import replay
from .footprint import Interval
from .problem import Problem
from .schedule import Recompute, Schedule, Store
from .treatment import at_leisure


@dataclasses.dataclass(frozen=True)
class _Choice:
    """One tensor away over one gap, and what that costs.

    - `tensor`: its position.
    - `after`: the segment that uses it before the gap.
    - `relieved`: the segments `[first, end)` that hold less then.
    """

    tensor: int
    after: int
    relieved: Interval
    seconds: float
    schedule: Schedule


def greedy(problem: Problem, seconds: float = float("inf")) -> Schedule | None:
    """A sound plan within the limits, or `None` if this simple search finds none.

    Each round takes the segment that is furthest over the limit and sends away the
    tensor that costs the fewest seconds per byte over a gap that holds it.

    **Arguments:**

    - `problem`: the placement problem.
    - `seconds`: wall time to spend at most.

    **Returns:**

    A `Schedule` that passes the checker, or `None`.
    """
    deadline = time.perf_counter() + seconds
    chosen: list[_Choice] = []
    refused: set[_Choice] = set()
    options = list(_choices(problem))
    while True:
        schedule = _merge(chosen)
        state = replay(dataclasses.replace(problem, host_limit=np.inf), schedule)
        worst = int(state.device.argmax()) if problem.segments else 0
        if not problem.segments or state.device[worst] <= problem.device_limit:
            return None if replay(problem, schedule).faults else schedule
        taken = {(c.tensor, c.after) for c in chosen}
        open_choices = [
            c
            for c in options
            if c.relieved[0] <= worst < c.relieved[1]
            and (c.tensor, c.after) not in taken
            and c not in refused
        ]
        if not open_choices or time.perf_counter() > deadline:
            return None
        best = min(open_choices, key=lambda c: _price(problem, c))
        trial = replay(
            dataclasses.replace(problem, host_limit=np.inf, device_limit=np.inf),
            _merge([*chosen, best]),
        )
        if trial.faults or trial.device[worst] >= state.device[worst]:
            refused.add(best)
        else:
            chosen.append(best)


def _price(problem: Problem, choice: _Choice) -> float:
    return choice.seconds / max(1, problem.tensors[choice.tensor].stacked)


def _choices(problem: Problem) -> Iterator[_Choice]:
    clock = np.concatenate([[0.0], np.cumsum(problem.compute)])
    link = problem.link
    for index, tensor in enumerate(problem.tensors):
        if tensor.carried is not None and tensor.movable:
            copies = 2 * tensor.nbytes / link.d2h
            for stretch, price in ((1.0, 0.5), (0.0, 1.0)):
                kept = Schedule(*on_host(tensor, clock, link, stretch, 3))
                whole = 0, problem.segments
                yield _Choice(index, -1, whole, price * copies, kept)
        for a, b in tensor.gaps(tensor.touches, 3):
            crossing, relieved = tensor.crossing, (a + 1, b)
            if crossing is not None and tensor.crosses(a, b):
                relieved = crossing.span
            recipe = tensor.recipe
            if (
                recipe is not None
                and b in recipe.seconds
                and _roots_stay(problem, index, b)
            ):
                again = Schedule(recomputes=(Recompute(tensor.value, b),))
                yield _Choice(index, a, relieved, recipe.seconds[b], again)
            if tensor.movable:
                nbytes = tensor.times * tensor.nbytes
                copies = nbytes * (1 / link.d2h + 1 / link.h2d)
                store, fetch = at_leisure(tensor, (a, b), clock, link)
                leisurely = Schedule((store,), (fetch,))
                yield _Choice(index, a, relieved, 0.5 * copies, leisurely)
                store, fetch = tensor.trip(a, b, a + 2, b - 1)
                at_once = Schedule((store,), (fetch,))
                yield _Choice(index, a, relieved, copies, at_once)


def _roots_stay(problem: Problem, index: int, use: int) -> bool:
    recipe = problem.tensors[index].recipe
    assert recipe is not None
    roots = (problem.tensors[r] for r in recipe.roots)
    return all(use in r.touches for r in roots)


def _merge(choices: list[_Choice]) -> Schedule:
    stored: set[int] = set()
    stores: list[Store] = []
    for choice in sorted(choices, key=lambda c: c.after):
        for store in choice.schedule.stores:
            # A second gap of the same tensor drops the clean copy for nothing.
            if store.value not in stored:
                stored.add(store.value)
                stores.append(store)
    return Schedule(
        tuple(sorted(stores)),
        tuple(sorted(f for c in choices for f in c.schedule.fetches)),
        tuple(sorted(r for c in choices for r in c.schedule.recomputes)),
    )
