"""A plan none of whose copies runs from before another one until after it.

XLA's scheduler goes through a step from its end and begins a copy as late as the
program allows. Where one has to begin, all others that are under way begin, too, except
those that end before it: they have waited longest. So a copy that was to run around
another begins with it, however early that was planned. What ends no later than the one
inside begins when it should. (XLA: `latency_hiding_scheduler.cc`, "kLessStall".)
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
    """The same plan with copies that end in the order in which they begin.

    A copy around another ends earlier, where there is time for that; else it begins as
    late as XLA would begin it.

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
        and problem.tensors[index].carried is None
        for copy in (*choice.fetches, *choice.stores)
    ]
    copies.sort(key=lambda item: item[1].window, reverse=True)
    settled: list[tuple[int, int]] = []
    for index, copy in copies:
        first, end = copy.window
        inside = [w for w in settled if first < w[0] < end and w[1] < end]
        if inside:
            copy = _out_of_the_way(ledger, index, copy, inside, allowed)
        settled.append(copy.window)
    return ledger.schedule()


def _out_of_the_way(
    ledger: Ledger,
    index: int,
    copy: Fetch | Store,
    inside: list[tuple[int, int]],
    allowed: float,
) -> Fetch | Store:
    before, excess = ledger.choices[index], ledger.excess()
    tried: list[tuple[float, Fetch | Store]] = []
    for other in _others(copy, inside):
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
    copy: Fetch | Store, inside: list[tuple[int, int]]
) -> Iterator[Fetch | Store]:
    first, _ = copy.window
    # A copy that everything waits for begins after what ends at its cut.
    end = min(b if a == b else b - 1 for a, b in inside)
    if end > first:
        yield dataclasses.replace(copy, done=end)
    yield dataclasses.replace(copy, start=max(a for a, _ in inside))
