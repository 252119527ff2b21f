"""A plan whose copies XLA begins where that is planned.

XLA's scheduler goes through a step from its end and begins a copy as late as the
program allows. Where one has to begin, for it as much time has passed as a copy takes,
and so it has for every other that is under way, once as much is left of the step as
between their ends. So a copy that was to take longer than one that begins while it runs
begins later, however early that was planned: as if both were as long. (XLA:
`latency_hiding_scheduler.cc`, "kLessStall".)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .ledger import Ledger
from .problem import Problem
from .schedule import Fetch, Schedule, Store


# A plan may become slower by this fraction, all its copies together: nothing.
_FREE = 1e-6


def unnest(problem: Problem, schedule: Schedule) -> Schedule:
    """The same plan with copies that take no longer than those that begin beside them.

    A copy that does ends earlier, where there is time for that; else it begins as late
    as XLA would begin it.

    **Arguments:**

    - `problem`, `schedule`: a schedule that passes the checker.

    **Returns:**

    A `Schedule` that passes it, too, with the same copies. It may be slower, as the one
    given would be.
    """
    ledger = Ledger(problem, schedule)
    allowed = ledger.seconds() * (1 + _FREE)
    copies = [
        (index, copy)
        for index, choice in enumerate(ledger.choices)
        # What one iteration does for another is in no order with the rest.
        if problem.tensors[index].crossing is None
        for copy in (*choice.fetches, *choice.stores)
    ]
    copies.sort(key=lambda item: item[1].window, reverse=True)
    settled: list[tuple[int, int]] = []
    for index, copy in copies:
        first, end = copy.window
        # What runs in a loop that the value is not in is scheduled by itself.
        closed = problem.tensors[index].closed
        shorter = [
            (a, b)
            for a, b in settled
            if first < a < end and b - a < end - first
            if not any(c <= a and b <= d for c, d in closed)
        ]
        if shorter:
            copy = _out_of_the_way(ledger, index, copy, shorter, allowed)
        settled.append(copy.window)
    return ledger.schedule()


def _out_of_the_way(
    ledger: Ledger,
    index: int,
    copy: Fetch | Store,
    shorter: list[tuple[int, int]],
    allowed: float,
) -> Fetch | Store:
    before, excess = ledger.choices[index], ledger.excess()
    tried: list[tuple[float, Fetch | Store]] = []
    for other in _others(copy, shorter):
        if not all(map(ledger.problem.tensors[index].is_open, other.window)):
            continue
        ledger.change({index: before.with_copy(copy, other)})
        seconds = ledger.seconds()
        if ledger.excess() <= excess:
            tried.append((max(allowed, seconds), other))
        ledger.change({index: before})
    if not tried:
        return copy
    _, other = min(tried, key=lambda item: item[0])
    ledger.change({index: before.with_copy(copy, other)})
    return other


def _others(
    copy: Fetch | Store, shorter: list[tuple[int, int]]
) -> Iterator[Fetch | Store]:
    first, end = copy.window
    # Beside each other they are as long; or one begins when the other ends.
    yield dataclasses.replace(copy, done=min(max(a, first + b - a) for a, b in shorter))
    yield dataclasses.replace(copy, start=max(min(a, end - b + a) for a, b in shorter))
