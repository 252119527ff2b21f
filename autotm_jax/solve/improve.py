"""Local search: a plan made to fit and made faster, one tensor at a time.

Where memory is tight, a relaxation rounded to whole tensors breaks the limit, and
boolean programs near it may hold no plan at all. From such a start each tensor is
tried in its other ways over each of its gaps: stay, come back by recomputation, move
with more or less time on the link. What is over the limit has its price, so a search
may start outside of the limits and end inside.

`anneal` first takes what makes a plan a little worse, too, and ever less so
(Kirkpatrick, Gelatt, Vecchi, Science 220, 1983); `descend` only what makes it better.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .carried import on_host
from .checker import replay
from .ledger import Choice, Ledger
from .problem import Problem
from .schedule import Fetch, Schedule, Store


# Time on the link for a copy, as multiples of what it needs alone: none, so that the
# value is away as long as possible and everything waits, half of it, and two that hide
# it behind compute.
_STRETCHES = (0.0, 0.5, 1.1, 2.0)

# From one use to the next, so that there is a segment between.
_SHORTEST_GAP = 2

# A sweep over all tensors that gains less than this fraction is the last one.
_LEAST_GAIN = 1e-3

# Trials per tensor of an annealing, and of one tensor in a row.
_TRIALS = 300
_IN_A_ROW = 3

# First and last temperature as fractions of the step, and prices of what is over the
# limits as multiples of it.
_TEMPERATURES = (1e-3, 1e-5)
_PRICES = (1.0, 100.0)


def descend(problem: Problem, schedule: Schedule, seconds: float) -> Schedule | None:
    """The end of a descent from a schedule.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: where to start; it may break rules.
    - `seconds`: wall time to spend at most.

    **Returns:**

    A `Schedule` that passes the checker, or `None` if the search ends outside of the
    limits.
    """
    descent = Descent(problem, schedule)
    descent.run(seconds)
    return descent.found()


class Descent:
    """A descent that can be interrupted: the largest tensors first, then the others.

    - `is_over`: whether it has come to its end, where nothing gets better.

    **Arguments:**

    - `problem`, `schedule`: as for `descend`.
    """

    def __init__(self, problem: Problem, schedule: Schedule):
        self.problem, self.is_over = problem, False
        self._ledger = Ledger(problem, schedule)
        self._best = self._ledger.score()
        self._steps = self._sweeps()

    def run(self, seconds: float) -> None:
        """Goes on for so many seconds at most."""
        deadline = time.perf_counter() + seconds
        while not self.is_over and time.perf_counter() < deadline:
            self.is_over = next(self._steps, None) is None

    def score(self) -> float:
        """Seconds of the step so far, and a price for every rule that is broken."""
        return self._best

    def found(self) -> Schedule | None:
        """What it has come to; `None` while that does not pass the checker."""
        found = self._ledger.schedule()
        return None if replay(self.problem, found).faults else found

    def _sweeps(self) -> Iterator[int]:
        """Tensors, once each of them was tried in all of its ways."""
        tensors, ledger = self.problem.tensors, self._ledger
        by_size = sorted(range(len(tensors)), key=lambda i: -tensors[i].nbytes)
        gained = True
        while gained:
            before = self._best
            for index in by_size:
                self._best = _settle(ledger, Ways(ledger, index), self._best)
                yield index
            by_size.reverse()
            gained = self._best < before * (1 - _LEAST_GAIN)


def anneal(
    problem: Problem,
    schedule: Schedule,
    seconds: float,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Schedule | None:
    """The best end of a search that also takes some changes for the worse.

    **Arguments:**

    - `problem`, `schedule`, `seconds`: as for `descend`. The time shortens the search
        where it would take longer; a search that is not cut short always ends the same.
    - `is_wanted`: asked now and then whether to go on.

    **Returns:**

    A `Schedule` that passes the checker, or `None` if none was met.
    """
    start = time.perf_counter()
    ledger, draw = Ledger(problem, schedule), random.Random(0)
    some = choosable(problem)
    total = _TRIALS * len(some)
    best: tuple[float, Schedule] | None = None
    if not ledger.excess():
        best = ledger.seconds(), schedule
    trials = 0
    done = 0.0
    while some and done < 1 and is_wanted():
        price = between(_PRICES, done)
        temperature = between(_TEMPERATURES, done) * ledger.clock[-1]
        present = ledger.score(price)
        ways = list(Ways(ledger, draw.choice(some)))
        trials += 1
        for changes in draw.sample(ways, min(_IN_A_ROW, len(ways))):
            before = {i: ledger.choices[i] for i in changes}
            ledger.change(changes)
            trials += 1
            worse = ledger.score(price) - present
            if worse <= 0 or draw.random() < math.exp(-worse / temperature):
                if not ledger.excess():
                    now = ledger.seconds()
                    if best is None or now < best[0] * (1 - _LEAST_GAIN):
                        best = now, ledger.schedule()
                break
            ledger.change(before)
        taken = time.perf_counter() - start
        done = max(trials / total, taken / seconds if seconds > 0 else 1.0)
    ends = [ledger.schedule()] if best is None else [ledger.schedule(), best[1]]
    seconds = seconds if is_wanted() else 0.0
    found = [descend(problem, end, seconds / 4) for end in ends]
    sound = [s for s in found if s is not None]
    return min(sound, key=lambda s: replay(problem, s).makespan, default=None)


def choosable(problem: Problem, least: int = 0) -> list[int]:
    """The tensors of at least so many bytes that could be elsewhere for a while."""
    return [
        i
        for i, t in enumerate(problem.tensors)
        if t.nbytes >= least
        and (t.gaps(t.touches, _SHORTEST_GAP) or t.carried is not None)
    ]


def between(ends: tuple[float, float], done: float) -> float:
    """From the first of two values to the last, by equal factors."""
    first, last = ends
    return first * (last / first) ** done


def _settle(ledger: Ledger, ways: Ways, best: float) -> float:
    # The best of a tensor's ways is taken, if it is better than the present one.
    chosen: Mapping[int, Choice] | None = None
    for changes in ways:
        present = {i: ledger.choices[i] for i in changes}
        ledger.change(changes)
        score = ledger.score()
        ledger.change(present)
        if score < best * (1 - 1e-9):
            best, chosen = score, changes
    if chosen is not None:
        ledger.change(chosen)
    return best


class Ways:
    """The other ways of one tensor, as choices of it and of what it is made from.

    - `gaps`: `(a, b)`: between its uses `a` and `b` it could be away.

    **Arguments:**

    - `ledger`: the schedule to be changed.
    - `index`: the position of the tensor.
    """

    def __init__(self, ledger: Ledger, index: int):
        self.ledger, self.clock, self.index = ledger, ledger.clock, index
        self.tensor = ledger.problem.tensors[index]
        uses = sorted({*self.tensor.touches, *ledger.reads[index]})
        self.gaps = self.tensor.gaps(uses, _SHORTEST_GAP)

    def __iter__(self) -> Iterator[Mapping[int, Choice]]:
        index, present = self.index, self.ledger.choices[self.index]
        if self.tensor.carried is not None:
            yield from ({index: choice} for choice in self._carried())
            return
        bare = self.bridged(Choice(), {})
        if present != bare:
            yield {index: bare}
        for stretch in _STRETCHES:
            if len(self.gaps) > 1 and self.tensor.movable:
                yield {index: self.bridged(present, dict.fromkeys(self.gaps, stretch))}
        for gap in self.gaps:
            yield {index: self.bridged(present, {gap: None})}
            if self.tensor.movable:
                for stretch in _STRETCHES:
                    yield {index: self.bridged(present, {gap: stretch})}
            yield from self._again(present, gap)

    def _carried(self) -> Iterator[Choice]:
        # What is read to compute something again would have to be fetched for that.
        yield Choice()
        if self.tensor.movable and not self.ledger.reads[self.index]:
            link = self.ledger.problem.link
            for stretch in _STRETCHES:
                copies = on_host(self.tensor, self.clock, link, stretch, _SHORTEST_GAP)
                yield Choice(*copies)

    def _again(
        self, present: Choice, gap: tuple[int, int]
    ) -> Iterator[Mapping[int, Choice]]:
        recipe = self.tensor.recipe
        if recipe is None:
            return
        for use in (gap[1], gap[1] - 1):
            if use not in recipe.seconds:
                continue
            changes = {self.index: self.bridged(present, {gap: use})}
            yield changes
            # Its roots may have gone: they come back with it, by recomputation.
            roots = {
                r: dataclasses.replace(choice, again=(*choice.again, use))
                for r in recipe.roots
                if self.may_come_back(r, use)
                for choice in [self.ledger.choices[r]]
            }
            if roots:
                yield roots | changes

    def may_come_back(self, root: int, use: int) -> bool:
        """Whether a root is not brought to segment `use`, but could be made there."""
        tensor, choice = self.ledger.problem.tensors[root], self.ledger.choices[root]
        if tensor.recipe is None or use not in tensor.recipe.seconds:
            return False
        arrives = {*tensor.touches, *choice.again, *(f.use for f in choice.fetches)}
        return use not in arrives

    def bridged(
        self, present: Choice, ways: Mapping[tuple[int, int], float | int | None]
    ) -> Choice:
        """A choice with some gaps bridged otherwise.

        By `None` (stay), an `int` (computed again there) or a `float` (moved, with
        this stretch).
        """
        link, tensor = self.ledger.problem.link, self.tensor
        fetches: list[Fetch] = []
        again: list[int] = []
        stretch = None
        for gap in self.gaps:
            a, b = gap
            way = ways.get(gap)
            if gap not in ways:
                fetches += [f for f in present.fetches if a < f.use <= b]
                again += [k for k in present.again if a < k <= b]
            elif isinstance(way, float):
                stretch = way if stretch is None else stretch
                need = way * tensor.times * tensor.nbytes
                goal = self.clock[b] - need / link.h2d
                start = int(np.searchsorted(self.clock, goal, side="right")) - 1
                # One segment is too few for both copies to run beside it.
                is_hidden = way > 0 and b - a > 2
                start = min(max(start, a + 2), b - 1) if is_hidden else b
                start = tensor.fetched_from(a, b, start)
                fetches.append(Fetch(tensor.value, start, b))
            elif way is not None:
                again.append(way)
        # From loop to loop what did not go to the host has no copy there afterwards.
        if tensor.crossing is not None and fetches:
            if fetches[0].use > self.gaps[0][1]:
                fetches = []
        if not fetches:
            return Choice((), (), tuple(again))
        return Choice(
            self._store(present, fetches, stretch), tuple(fetches), tuple(again)
        )

    def _store(
        self, present: Choice, fetches: list[Fetch], stretch: float | None
    ) -> tuple[Store, ...]:
        # Written when it leaves for the first time, and there before it comes back.
        first = fetches[0]
        after = max(a for a, b in self.gaps if a < first.use)
        if stretch is None and present.stores and present.stores[0].after == after:
            if present.stores[0].done <= first.start:
                return present.stores
        if stretch == 0.0 or first.start == first.use == after + 2:
            return (Store(self.tensor.value, after, after + 1),)
        nbytes = self.tensor.times * self.tensor.nbytes
        need = (stretch or 0.0) * nbytes / self.ledger.problem.link.d2h
        done = int(np.searchsorted(self.clock, self.clock[after + 1] + need))
        done = min(max(done, after + 2), max(first.start, after + 2))
        done = self.tensor.stored_by(after, first.use, done)
        return (
            Store(self.tensor.value, after, min(done, max(first.start, after + 1))),
        )
