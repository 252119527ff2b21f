"""A plan shaken until its allocation fits.

How buffers pack is chaotic: a copy that begins one segment later may move all that is
placed after it. So near a plan that does not fit there are many that are as fast, and
some of them fit. To find one, single tensors are treated otherwise at random, as in an
annealing, at a price for what is over the limit that rises until it decides.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Mapping

import numpy as np

from .checker import replay
from .heap import Packing, Precedence, pack_within, packed_bytes
from .improve import Ways, between, choosable
from .ledger import Choice, Ledger
from .polish import polish
from .problem import Problem
from .schedule import Schedule, Store


# A search ends after so many packings, so many changes, or when its time is over.
_PACKINGS = 1000
_CHANGES = 20_000

# First and last price of what is over the limit, and temperature, as multiples of the
# step: the price is for as much as the limit.
_PRICES = (1.0, 20.0)
_TEMPERATURES = (1e-3, 1e-5)

# What one segment over the limit counts for beside the one that is over it most.
_WIDTH = 0.05

# How often what is there where the limit is broken is changed, and not anything; and
# how often a copy is only moved by a segment or two.
_THERE = 0.9
_NUDGED = 0.6
_NUDGES = (-2, -1, 1, 2)

# So many changes away from a plan is another one, which packs otherwise.
_AWAY = 30

# A smaller part of the limit than this is not worth changing.
_LEAST_BYTES = 2e-3


def shake(
    problem: Problem,
    schedule: Schedule,
    seconds: float,
    enough: float = 0.0,
    other: int = 0,
) -> Schedule | None:
    """A schedule whose allocation keeps the device limit, near one that does not.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: where to start; a polished schedule that breaks no rule but the device
        limit.
    - `seconds`: wall time to spend at most.
    - `enough`: seconds of the step at which it is good enough.
    - `other`: if not 0, another schedule is wanted than the one given, and for each
        number one more.

    **Returns:**

    A polished `Schedule` that passes the checker and packs, or `None` if none was
    found.
    """
    if problem.device_limit <= 0 or not problem.segments:
        return None
    return _Shaking(problem, schedule, seconds, other).run(enough)


@dataclasses.dataclass(frozen=True)
class _Excess:
    """What an allocation takes beyond the limit.

    - `nbytes`: as a fraction of the limit; wide excess counts for more.
    - `over`: by segment, whether anything is above the limit.
    """

    nbytes: float
    over: np.ndarray


class _Shaking:
    def __init__(
        self, problem: Problem, schedule: Schedule, seconds: float, other: int = 0
    ):
        self.problem, self.limit = problem, problem.device_limit
        self.seconds, self.start = seconds, time.perf_counter()
        self.draw = random.Random(other)
        self.away = _AWAY if other else 0
        self.given = max(Ledger(problem, schedule).seconds(), 1e-9)
        self.choosable = choosable(problem, int(_LEAST_BYTES * self.limit))
        self.packings = self.changes = 0
        self.best: tuple[float, Schedule] | None = None
        self._begin(schedule)
        if not self.away and not self.excess.nbytes and self._fits(schedule):
            self.best = 1.0, schedule

    def _begin(self, schedule: Schedule) -> None:
        self.ledger = Ledger(self.problem, schedule)
        # By the present schedule, as a part of what the first one takes.
        self.taken = self.ledger.seconds() / self.given
        packing = self._packed(math.inf)
        assert packing is not None
        self._take(self._excess(packing))

    def _take(self, excess: _Excess) -> None:
        self.excess, over = excess, excess.over
        prints = self.ledger.footprints()
        self.there = [
            i
            for i in self.choosable
            if any(over[first:end].any() for first, end in prints[i].stays)
        ]

    def run(self, enough: float) -> Schedule | None:
        """The fastest schedule that was met and fits."""
        while self.choosable and (done := self._done()) < 1:
            if self.best is not None and self.best[0] * self.given <= enough:
                break
            price = between(_PRICES, done)
            heat = between(_TEMPERATURES, done) * -math.log(1 - self.draw.random())
            changes = self._change()
            before = {i: self.ledger.choices[i] for i in changes}
            self.changes += 1
            if before == changes:
                continue
            self.ledger.change(changes)
            bar = self.taken + price * self.excess.nbytes + heat
            now = self.ledger.seconds() / self.given
            excess = self._if_better(now, bar, price)
            if excess is None:
                self.ledger.change(before)
                continue
            self.taken = now
            self._take(excess)
            self.away -= 1
            if self.away > 0:
                continue
            if not excess.nbytes and (self.best is None or now < self.best[0]):
                self._settle()
        return None if self.best is None else self.best[1]

    def _done(self) -> float:
        taken = (time.perf_counter() - self.start) / max(self.seconds, 1e-9)
        return max(self.packings / _PACKINGS, self.changes / _CHANGES, taken)

    def _change(self) -> Mapping[int, Choice]:
        some = self.there or self.choosable
        if self.draw.random() >= _THERE:
            some = self.choosable
        index = self.draw.choice(some)
        if self.draw.random() < _NUDGED:
            return self._nudged(index)
        ways = list(Ways(self.ledger, index))
        return self.draw.choice(ways) if ways else {}

    def _nudged(self, index: int) -> Mapping[int, Choice]:
        choice, tensor = self.ledger.choices[index], self.problem.tensors[index]
        copies = [*choice.stores, *choice.fetches]
        if not copies or tensor.crossing is not None or tensor.carried is not None:
            return {}
        copy, by = self.draw.choice(copies), self.draw.choice(_NUDGES)
        first, end = copy.window
        if isinstance(copy, Store):  # which ends otherwise
            done = min(max(first, end + by), self.problem.segments)
            other = dataclasses.replace(copy, done=done)
        else:
            start = min(max(0, first + by), end)
            other = dataclasses.replace(copy, start=start)
        return {index: choice.with_copy(copy, other)}

    def _if_better(self, now: float, bar: float, price: float) -> _Excess | None:
        """What is over the limit after a change, if that is to be taken."""
        ledger = self.ledger
        live = float(ledger.device().max(initial=0.0)) / self.limit - 1
        if now + price * max(0.0, live) > bar or ledger.faults:
            return None
        if ledger.host_peak() > self.problem.host_limit:
            return None
        most = self.limit * (1 + (bar - now) / price)
        packing = self._packed(most)
        if packing is None:
            return None
        excess = self._excess(packing)
        return excess if now + price * excess.nbytes <= bar else None

    def _packed(self, most: float) -> Packing | None:
        # With the longest first anything may change by chance: XLA may, but need not,
        # find that better. By other clocks it is looked at in the end.
        self.packings += 1
        ledger, problem = self.ledger, self.problem
        state = replay(problem, ledger.schedule(), ledger.footprints())
        return pack_within(problem, state, most, [Precedence.LARGEST], clocks=1)

    def _excess(self, packing: Packing) -> _Excess:
        limit = self.limit - packing.carried
        height = np.zeros(self.problem.segments)
        above = packing.tops > limit
        rows, tops = packing.buffers[above], packing.tops[above]
        for (_, first, end), top in zip(rows, tops, strict=True):
            height[first:end] = np.maximum(height[first:end], top - limit)
        most = max(height.max(initial=0.0), packing.nbytes - self.limit)
        nbytes = float(most + _WIDTH * height.sum()) / self.limit
        return _Excess(nbytes, height > 0)

    def _settle(self) -> None:
        """Polishes a schedule that fits. If it does not fit then, it is no end yet."""
        polished = polish(self.problem, self.ledger.schedule())
        state = replay(self.problem, polished)
        self._begin(polished)
        self.packings += 1
        is_sound = not state.faults and self.excess.nbytes == 0
        is_faster = self.best is None or self.taken < self.best[0]
        if is_sound and is_faster and self._fits(polished):
            self.best = self.taken, polished

    def _fits(self, schedule: Schedule) -> bool:
        return packed_bytes(self.problem, replay(self.problem, schedule)) <= self.limit
