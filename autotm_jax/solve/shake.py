"""A plan shaken until its allocation fits.

How buffers pack is chaotic: a copy that begins one segment later may move all that is
placed after it. So near a plan that does not fit there are many that are as fast, and
some of them fit. To find one, single tensors are treated otherwise at random, as in an
annealing, at a price for what does not fit that rises until it decides.

XLA places what is large first. So whether a buffer fits hangs on those as large that
are there meanwhile, and hardly on anything else: one of them is what is changed.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Mapping

import numpy as np

from .checker import replay
from .heap import clocks_over, left_out, pack_within
from .improve import Ways, between, choosable
from .ledger import Choice, Ledger
from .polish import polish
from .problem import Problem
from .schedule import Schedule, Store


# A search ends after so many packings, so many changes, or when its time is over.
_PACKINGS = 1000
_CHANGES = 20_000

# First and last price of what does not fit, and temperature, as multiples of the step:
# the price is for as much as the limit.
_PRICES = (1.0, 20.0)
_TEMPERATURES = (1e-3, 1e-5)

# What each segment counts for in which something does not fit, beside its bytes.
_WIDTH = 0.05

# How often what it hangs on is changed, and not anything; how often what the largest
# does that does not fit, and not any; and how often a copy is only moved by a segment
# or two. Something is as large if it has this part of its bytes.
_THERE = 0.9
_LARGEST = 0.5
_AS_LARGE = 0.9
_NUDGED = 0.6
_NUDGES = (-2, -1, 1, 2)

# So many changes away from a plan is another one, which packs otherwise.
_AWAY = 30

# A smaller part of the limit than this is not worth changing.
_LEAST_BYTES = 2e-3

# What is faster by less than this part is not worth polishing.
_FASTER = 1e-3


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
    """What does not fit under the limit.

    - `nbytes`: as a fraction of the limit; what is long there counts for more.
    - `rows`: `(bytes, first, end)` of each buffer, the largest first. Where live bytes
        alone are more than the limit, though XLA might pack them, a segment without
        bytes.
    """

    nbytes: float
    rows: np.ndarray


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
        # What fits by our clock may not by another one. Then that one counts.
        self.clock = 0
        self.best: tuple[float, Schedule] | None = None
        self._begin(schedule)
        if not self.away:
            self._judge(schedule)

    def _begin(self, schedule: Schedule) -> None:
        self.ledger = Ledger(self.problem, schedule)
        # By the present schedule, as a part of what the first one takes.
        self.taken = self.ledger.seconds() / self.given
        excess = self._excess(math.inf)
        assert excess is not None
        self.excess = excess

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
            self.taken, self.excess = now, excess
            self.away -= 1
            if self.away <= 0 and not excess.nbytes and self._is_faster():
                self._settle()
        return None if self.best is None else self.best[1]

    def _done(self) -> float:
        taken = (time.perf_counter() - self.start) / max(self.seconds, 1e-9)
        return max(self.packings / _PACKINGS, self.changes / _CHANGES, taken)

    def _is_faster(self) -> bool:
        return self.best is None or self.taken < (1 - _FASTER) * self.best[0]

    def _change(self) -> Mapping[int, Choice]:
        some = self.choosable
        if self.draw.random() < _THERE:
            some = self._there() or some
        index = self.draw.choice(some)
        if self.draw.random() < _NUDGED:
            return self._nudged(index)
        ways = list(Ways(self.ledger, index))
        return self.draw.choice(ways) if ways else {}

    def _there(self) -> list[int]:
        """The tensors on which it hangs whether a buffer fits that does not."""
        rows = self.excess.rows
        if not len(rows):
            return []
        is_first = self.draw.random() < _LARGEST
        at = 0 if is_first else self.draw.randrange(len(rows))
        nbytes, first, end = rows[at].tolist()
        prints = self.ledger.footprints()

        def is_one(index: int) -> bool:
            tensor, found = self.problem.tensors[index], prints[index]
            buffers = [(tensor.nbytes, stay) for stay in found.stays]
            if found.stack is not None:
                buffers.append((tensor.stacked, found.stack))
            return any(
                size >= _AS_LARGE * nbytes and a < end and b > first
                for size, (a, b) in buffers
            )

        return list(filter(is_one, self.choosable))

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
        """What does not fit after a change, if that is to be taken."""
        ledger = self.ledger
        live = float(ledger.device().max(initial=0.0)) / self.limit - 1
        if now + price * max(0.0, live) > bar or ledger.faults:
            return None
        if ledger.host_peak() > self.problem.host_limit:
            return None
        excess = self._excess((bar - now) / price)
        if excess is None or now + price * excess.nbytes > bar:
            return None
        return excess

    def _excess(self, most: float) -> _Excess | None:
        """What does not fit, or `None` if it is known to be more than `most`."""
        # With the longest first anything may change by chance: XLA may, but need not,
        # find that better. By other clocks it is looked at in the end.
        self.packings += 1
        ledger, problem = self.ledger, self.problem
        state = replay(problem, ledger.schedule(), ledger.footprints())
        most *= self.limit
        rows = left_out(problem, state, self.limit, self.clock, most)
        if rows is None:
            return None
        nbytes, first, end = rows.T
        counted = float((nbytes * (1 + _WIDTH * (end - first))).sum())
        live = state.device_peak - self.limit
        if live > counted:
            counted = live
            at = (state.device > self.limit).nonzero()[0]
            segments = np.stack([np.zeros_like(at), at, at + 1], axis=1)
            rows = np.concatenate([rows, segments])
        return _Excess(counted / self.limit, rows)

    def _settle(self) -> None:
        """Polishes a schedule that fits. If it does not fit then, it is no end yet."""
        polished = polish(self.problem, self.ledger.schedule())
        self._begin(polished)
        if not self.excess.nbytes and self._is_faster():
            self._judge(polished)

    def _judge(self, schedule: Schedule) -> None:
        """Takes a schedule, the present one, if it fits by every clock.

        If it does not fit by another one, that is gone by from now on.
        """
        problem, limit = self.problem, self.limit
        state = replay(problem, schedule)
        if state.faults:
            return
        if pack_within(problem, state, limit) is not None:
            self.best = self.taken, schedule
        elif not self.excess.nbytes and (over := clocks_over(problem, state, limit)):
            self.clock = self.draw.choice(over)
            self._begin(schedule)
