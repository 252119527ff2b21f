"""Plans that need no solver: what a person would write down."""

from __future__ import annotations

import numpy as np

from .carried import on_host
from .checker import replay
from .problem import Problem
from .schedule import Fetch, Schedule, Store
from .treatment import SHORTEST_GAP, Treatment, Way, gaps_of, roots_first


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
            stored, fetched = on_host(tensor, clock, problem.link, 0.0, SHORTEST_GAP)
            stores += stored
            fetches += fetched
            continue
        away = gaps_of(tensor, tensor.touches)
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
    ways = dict.fromkeys(range(len(problem.tensors)), Way.RECOMPUTE)
    return Treatment(problem, roots_first(problem), ways).schedule()


def best_policy(problem: Problem) -> tuple[str, Schedule] | None:
    """The fastest of the plans that take no time to write down.

    **Arguments:**

    - `problem`: with the limits to keep.

    **Returns:**

    Its name and the plan, which passes the checker; `None` if none does.
    """
    plans = {
        "everything stays": Schedule(),
        "everything is offloaded": offload_everything(problem),
        "everything is recomputed": recompute_everything(problem),
    }
    states = {name: replay(problem, plan) for name, plan in plans.items()}
    sound = {n: state.makespan for n, state in states.items() if not state.faults}
    if not sound:
        return None
    name = min(sound, key=sound.__getitem__)
    return name, plans[name]
