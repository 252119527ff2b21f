"""A plan without what nobody waits for.

A search may bring a value back for a recomputation that it then does without. Nothing
reads it, so XLA drops the copy, and the plan promises what no executable shows.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections import defaultdict

from .checker import replay
from .problem import Problem
from .schedule import Schedule


def tidy(problem: Problem, schedule: Schedule) -> Schedule:
    """The same plan without values that arrive, or are stored, for nothing.

    **Arguments:**

    - `problem`, `schedule`: a schedule that passes the checker.

    **Returns:**

    A `Schedule` that passes it, too; the same if there is nothing to leave out.
    """
    found = schedule
    while (less := _without_needless(problem, found)) != found:
        found = less
    return schedule if replay(problem, found).faults else found


def _without_needless(problem: Problem, schedule: Schedule) -> Schedule:
    position = {t.value: i for i, t in enumerate(problem.tensors)}
    wanted = {t.value: set(t.touches) for t in problem.tensors}
    for item in schedule.recomputes:
        recipe = problem.tensors[position[item.value]].recipe
        for root in () if recipe is None else recipe.roots:
            wanted[problem.tensors[root].value].add(item.use)
    arrivals: dict[int, set[int]] = defaultdict(set)
    for item in (*schedule.fetches, *schedule.recomputes):
        arrivals[item.value].add(item.use)
    uses = {value: sorted(at) for value, at in wanted.items()}
    again = {value: sorted(at) for value, at in arrivals.items()}

    def is_needed(value: int, use: int) -> bool:
        # Somebody wants it before it arrives the next time.
        place = bisect.bisect_left(uses[value], use)
        following = bisect.bisect_right(again[value], use)
        if place == len(uses[value]):
            return False
        later = again[value]
        return following == len(later) or uses[value][place] < later[following]

    fetches = tuple(f for f in schedule.fetches if is_needed(f.value, f.use))
    recomputes = tuple(r for r in schedule.recomputes if is_needed(r.value, r.use))
    read_there = {f.value for f in fetches} | {s.value for s in schedule.streams}
    carried = {t.value for t in problem.tensors if t.carried is not None}
    stores = tuple(s for s in schedule.stores if s.value in read_there | carried)
    return dataclasses.replace(
        schedule, stores=stores, fetches=fetches, recomputes=recomputes
    )
