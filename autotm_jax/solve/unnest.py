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
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from .ledger import Choice, Ledger
from .problem import Problem
from .schedule import Fetch, Schedule, Store


# A plan may become slower by this fraction, all its copies together: nothing.
_FREE = 1e-6

# At how many segments one copy may end and another begin, of those between.
_HANDOVERS = 8

# Of more copies than these, those behind one another are not put in a row: it takes a
# look at all the others for each, and as often as there are copies.
_MOST_QUEUED = 32

# What begins later may then begin beside a longer one.
_PASSES = 4

Copy = Fetch | Store

Placed = tuple[int, Copy]
"""The number of a tensor, and a copy of it."""

Changes = Mapping[Placed, Copy]
"""Other copies in the places of some."""

Options = Callable[["_Unnesting", Placed, Sequence[Placed]], Iterator[Changes]]
"""What may be done about a copy, and shorter ones that begin beside it."""


def unnest(problem: Problem, schedule: Schedule) -> Schedule:
    """The same plan with copies that take no longer than those that begin beside them.

    A copy that does ends earlier, where there is time for that; or it begins as late as
    XLA would begin it. Where that takes longer, the other one takes as long, or begins
    when it has ended, if there is room in memory; or all that are behind it begin one
    after another.

    **Arguments:**

    - `problem`, `schedule`: a schedule that passes the checker.

    **Returns:**

    A `Schedule` that passes it, too, with the same copies. It takes no more memory than
    the limit of the problem, or than before. It may be slower, as the one given would
    be.
    """
    ways: list[_Unnesting] = []
    few = len(schedule.stores) + len(schedule.fetches) <= _MOST_QUEUED
    for options in (_shortened, _in_turn, *([_queued] if few else [])):
        way = _Unnesting(problem, schedule)
        way.run(options)
        way.settle()
        ways.append(way)
        if way.ledger.seconds() <= way.allowed:
            break
    fastest = min(ways, key=lambda way: way.ledger.seconds())
    return fastest.ledger.schedule()


class _Unnesting:
    """A schedule whose copies are put in order."""

    def __init__(self, problem: Problem, schedule: Schedule):
        self.ledger, self.problem = Ledger(problem, schedule), problem
        self.allowed = self.ledger.seconds() * (1 + _FREE)
        self.faults = self.ledger.excess()
        peak = float(self.ledger.device().max(initial=0.0))
        is_limited = math.isfinite(problem.device_limit)
        self.room = max(peak, problem.device_limit) if is_limited else peak
        self.settled: list[Placed] = []

    def settle(self) -> None:
        """Shortens and delays copies until none is around another."""
        for _ in range(_PASSES):
            before = list(self.ledger.choices)
            self.run(_shortened)
            if self.ledger.choices == before:
                break

    def run(self, options: Options) -> None:
        """Goes through all copies once, those first that begin last."""
        tensors = self.problem.tensors
        left = [
            (index, copy)
            for index, choice in enumerate(self.ledger.choices)
            # What one iteration does for another is in no order with the rest.
            if tensors[index].crossing is None
            for copy in (*choice.fetches, *choice.stores)
        ]
        self.settled = []
        for placed in sorted(left, key=lambda placed: placed[1].window, reverse=True):
            shorter = [s for s in self.settled if self._is_around(placed, s)]
            changed: Changes = {}
            if shorter:
                changed = self._out_of_the_way(placed, options(self, placed, shorter))
            self.settled.append(placed)
            self.settled = [(i, changed.get((i, c), c)) for i, c in self.settled]

    def queued(self, placed: Placed, end: int) -> Changes:
        """A copy that ends at a cut, and all that begin before, each after another.

        They end when they did, or later where that is too soon for them alone.
        """
        changes: dict[Placed, Copy] = {placed: dataclasses.replace(placed[1], done=end)}
        kind, clock, link = type(placed[1]), self.ledger.clock, self.problem.link
        bandwidth = link.d2h if kind is Store else link.h2d
        behind = [s for s in self.settled if type(s[1]) is kind]
        for index, copy in sorted(behind, key=lambda s: s[1].window):
            first, done = copy.window
            if first >= end or end >= self.problem.segments:
                break
            seconds = self.problem.tensors[index].nbytes / bandwidth
            needed = int(np.searchsorted(clock, clock[end] + seconds))
            done = max(done, needed)
            changes[index, copy] = dataclasses.replace(copy, start=end, done=done)
            end = done
        return changes

    def _is_around(self, placed: Placed, other: Placed) -> bool:
        """Whether a copy is to take longer than another one that begins beside it."""
        index, copy = placed
        (first, end), (a, b) = copy.window, other[1].window
        if not (first < a < end and b - a < end - first):
            return False
        # What runs in a loop that the value is not in is scheduled by itself.
        return not any(c <= a and b <= d for c, d in self.problem.tensors[index].closed)

    def _out_of_the_way(self, placed: Placed, options: Iterator[Changes]) -> Changes:
        """Takes the fastest of some options; returns what was changed."""
        best: Changes = {}
        least = float("inf")
        for changes in options:
            if least <= self.allowed:
                break
            before = self._change(placed, changes)
            if before is None:
                continue
            seconds = max(self.allowed, self.ledger.seconds())
            if self._fits() and seconds < least:
                best, least = changes, seconds
            self.ledger.change(before)
        self._change(placed, best)
        return best

    def _fits(self) -> bool:
        if self.ledger.excess() > self.faults:
            return False
        return float(self.ledger.device().max(initial=0.0)) <= self.room

    def _change(self, placed: Placed, changes: Changes) -> Mapping[int, Choice] | None:
        """Takes other copies, if they are in order; returns the choices before."""
        choices: dict[int, Choice] = {}
        rest = [s for s in (placed, *self.settled) if s not in changes]
        for (index, copy), other in changes.items():
            is_open = self.problem.tensors[index].is_open
            if other.window[1] > self.problem.segments:
                return None
            if not all(map(is_open, other.window)):
                return None
            is_beside = (index, copy) != placed
            if is_beside and self._nests((index, copy), (index, other), rest):
                return None
            choice = choices.get(index, self.ledger.choices[index])
            choices[index] = choice.with_copy(copy, other)
        before = {index: self.ledger.choices[index] for index in choices}
        self.ledger.change(choices)
        return before

    def _nests(self, old: Placed, new: Placed, rest: Sequence[Placed]) -> bool:
        """Whether a copy that was settled nests with another one, and did not."""
        return any(
            (self._is_around(new, s) and not self._is_around(old, s))
            or (self._is_around(s, new) and not self._is_around(s, old))
            for s in rest
        )


def _shortened(
    _: _Unnesting, placed: Placed, shorter: Sequence[Placed]
) -> Iterator[Changes]:
    copy = placed[1]
    first, end = copy.window
    windows = [other.window for _, other in shorter]
    # It is as long as they are, or begins when they do.
    done = min(max(a, first + b - a) for a, b in windows)
    yield {placed: dataclasses.replace(copy, done=done)}
    start = max(min(a, end - b + a) for a, b in windows)
    yield {placed: dataclasses.replace(copy, start=start)}


def _in_turn(
    unnesting: _Unnesting, placed: Placed, shorter: Sequence[Placed]
) -> Iterator[Changes]:
    yield from _shortened(unnesting, placed, shorter)
    _, copy = placed
    first, end = copy.window
    beside = min(shorter, key=lambda other: other[1].window)
    (a, b), length = beside[1].window, end - first
    if isinstance(beside[1], Fetch):
        start = max(first, b - length)
        yield {beside: dataclasses.replace(beside[1], start=start)}
    else:
        yield {beside: dataclasses.replace(beside[1], done=a + length)}
    last = min(b - 1, end)
    for at in range(a + 1, last + 1, max(1, (last - a) // _HANDOVERS)):
        earlier = dataclasses.replace(copy, done=at)
        later = dataclasses.replace(beside[1], start=at)
        yield {placed: earlier, beside: later}
        # As long as before, where there is room in memory.
        if isinstance(later, Store):
            yield {placed: earlier, beside: dataclasses.replace(later, done=b + at - a)}
        if isinstance(earlier, Fetch):
            start = max(0, first + at - end)
            yield {placed: dataclasses.replace(earlier, start=start), beside: later}


def _queued(
    unnesting: _Unnesting, placed: Placed, shorter: Sequence[Placed]
) -> Iterator[Changes]:
    yield from _in_turn(unnesting, placed, shorter)
    first = min(other.window[0] for _, other in shorter)
    end = placed[1].window[1]
    for at in range(end, first, -max(1, (end - first) // _HANDOVERS)):
        yield unnesting.queued(placed, at)
