"""What a schedule could do otherwise with one tensor, and what that would cost.

A plan is the best that was found for all tensors together. Why it does what it does
with one of them shows when that one goes another way, and everything else stays as it
is: the step takes longer, or something does not fit.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping

from .improve import Ways
from .ledger import Choice, Ledger
from .problem import Problem
from .schedule import Schedule


# Time on the link for a copy, as multiples of what it needs alone: as the networks of
# the joint program have it, enough to hide the copy behind compute.
_STRETCHES = (1.1, 1.5, 2.0)


class Way(enum.Enum):
    """What becomes of a tensor between its uses. The values are for the user."""

    STAYS = "stays"
    MOVES = "moves"
    AGAIN = "computed again"
    BOTH = "moves and is computed again"


@dataclasses.dataclass(frozen=True)
class Alternative:
    """A schedule in which one tensor goes another way, the rest as it was.

    - `way`: the way.
    - `schedule`: the whole schedule.
    - `seconds`: that the step takes longer.
    - `over`: device bytes over the limit, where they are most; 0 if they keep it.
    - `segment`: where that is.
    - `host_over`: host bytes over theirs.
    """

    way: Way
    schedule: Schedule
    seconds: float
    over: int
    segment: int
    host_over: int

    @property
    def fits(self) -> bool:
        """Whether the schedule keeps the limits."""
        return not self.over and not self.host_over


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a schedule does with one tensor, and what else it could do with it.

    - `way`: what it does.
    - `has_gap`: whether the tensor is left alone for long enough to be away at all.
    - `others`: an `Alternative` for each other way that there is, the best one first:
        those that fit, and of these the fastest. A way is missing where the tensor may
        not move, or may not be computed again there.
    """

    way: Way
    has_gap: bool
    others: tuple[Alternative, ...]


def decisions(problem: Problem, schedule: Schedule) -> tuple[Decision, ...]:
    """Every decision of a schedule, next to its alternatives.

    A tensor that is away now goes each other way over the same gaps between its uses,
    one that stays over its longest. Copies get windows long enough to hide them, where
    there is room for that. Of several schedules for one way, the best is taken.

    **Arguments:**

    - `problem`, `schedule`: with the limits to keep, and a schedule that passes the
        checker.

    **Returns:**

    A `Decision` for each of `problem.tensors`.
    """
    ledger = Ledger(problem, schedule)
    return tuple(_decision(ledger, index) for index in range(len(problem.tensors)))


def _way(choice: Choice) -> Way:
    if choice.fetches or choice.stores or choice.streams:
        return Way.BOTH if choice.again else Way.MOVES
    return Way.AGAIN if choice.again else Way.STAYS


def _decision(ledger: Ledger, index: int) -> Decision:
    present, before = _way(ledger.choices[index]), ledger.seconds()
    gaps = Ways(ledger, index).gaps
    best: dict[Way, Alternative] = {}
    for changes in _changes(ledger, index) if gaps else ():
        way = _way(changes[index])
        if way is present:
            continue
        known = {i: ledger.choices[i] for i in changes}
        ledger.change(changes)
        if not ledger.faults:
            found = _judged(ledger, way, before)
            if way not in best or _rank(found) < _rank(best[way]):
                best[way] = found
        ledger.change(known)
    return Decision(present, bool(gaps), tuple(sorted(best.values(), key=_rank)))


def _rank(found: Alternative) -> tuple[int, float]:
    return found.over + found.host_over, found.seconds


def _judged(ledger: Ledger, way: Way, before: float) -> Alternative:
    problem = ledger.problem
    device = ledger.device()
    over = device.max() - problem.device_limit
    host_over = ledger.host_peak() - problem.host_limit
    return Alternative(
        way,
        ledger.schedule(),
        ledger.seconds() - before,
        _bytes_over(over, problem.device_limit),
        int(device.argmax()),
        _bytes_over(host_over, problem.host_limit),
    )


def _bytes_over(over: float, limit: float) -> int:
    # With the tolerance of the checker.
    return int(over) if over > limit * 1e-9 + 1 else 0


def _changes(ledger: Ledger, index: int) -> Iterator[Mapping[int, Choice]]:
    present, ways = ledger.choices[index], Ways(ledger, index)
    arrivals = {*present.again, *(f.use for f in present.fetches)}
    gaps = [(a, b) for a, b in ways.gaps if any(a < k <= b for k in arrivals)]
    if not gaps:
        clock = ledger.clock
        length = {(a, b): float(clock[b] - clock[a + 1]) for a, b in ways.gaps}
        gaps = [max(length, key=length.__getitem__)]
    yield {index: ways.bridged(present, dict.fromkeys(gaps))}
    if ways.tensor.movable:
        for stretch in _STRETCHES:
            yield {index: ways.bridged(present, dict.fromkeys(gaps, stretch))}
    recipe = ways.tensor.recipe
    if recipe is None:
        return
    # For its use, or ahead of the segment before, which may read the same.
    allowed = [[k for k in (b, b - 1) if k in recipe.seconds] for _, b in gaps]
    for end in (0, -1) if all(allowed) else ():
        uses = [places[end] for places in allowed]
        again = ways.bridged(present, dict(zip(gaps, uses, strict=True)))
        yield {index: again}
        # What it is made of may have gone: it comes back with it, by recomputation.
        roots: dict[int, Choice] = {}
        for root in recipe.roots:
            back = tuple(k for k in uses if ways.may_come_back(root, k))
            if back:
                known = ledger.choices[root]
                roots[root] = dataclasses.replace(known, again=(*known.again, *back))
        if roots:
            yield roots | {index: again}
