"""How XLA packs buffers: live bytes are not yet an allocation.

XLA gives every temporary a fixed offset in one allocation. It places buffers one after
the other, largest first and of those longest-lived first (or the other way round; the
better of the two is taken), each into the smallest gap that is free for its whole life.
What a set of lifetimes takes is therefore more than its largest sum of live bytes; by
how much depends on the plan. (XLA: `GlobalDecreasingSizeBestFitHeap`.)

How long a life is goes by *ticks*: by how many others begin or end meanwhile. Among the
many buffers of one size that a network has, that decides. What we count may be a few
percent off, and a plan that was searched for is likely to be one that is lucky by our
clock. So it is packed by a few others, too, and the worst counts. With the largest
first lives only matter among equals, and one clock may be alone with what it says.
"""

from __future__ import annotations

import bisect
import dataclasses
import enum
import math
from collections.abc import Sequence

import numpy as np

from .checker import Replay
from .lives import Lives
from .problem import Problem


# How many clocks, of which one is ours, and by how much the ticks of others differ from
# that: the standard deviation of its logarithm.
_CLOCKS = 7
_WRONG = 0.2

# With the largest first, one of so many clocks need not be listened to.
_OTHERS = 4


class Precedence(enum.Enum):
    """What is placed first."""

    LARGEST = 0
    LONGEST = 1


@dataclasses.dataclass(frozen=True)
class Packing:
    """Where every buffer ends up in one allocation.

    - `buffers`: rows of `(bytes, first, end)`: from segment `first` until before
        segment `end`. A buffer that a result takes over from an operand is one.
    - `tops`: per buffer, the offset of its end.
    - `nbytes`: of the allocation, and of the state that is on the device beside it.
    - `carried`: of that state.
    - `order`: the one of the two that takes less.
    """

    buffers: np.ndarray
    tops: np.ndarray
    nbytes: int
    carried: int
    order: Precedence


# The height, what is placed in turn, and where each ends.
_Placed = tuple[int, np.ndarray, np.ndarray]


def pack(problem: Problem, replayed: Replay) -> Packing:
    """The allocation that XLA is expected to make for a plan.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.

    **Returns:**

    A `Packing`; never smaller than the plan's peak of live bytes.
    """
    packing = pack_within(problem, replayed, math.inf)
    assert packing is not None
    return packing


def pack_within(problem: Problem, replayed: Replay, most: float) -> Packing | None:
    """The same, or `None` as soon as it is known to take more than `most` bytes."""
    if replayed.device_peak > most:
        return None
    lives = Lives(problem, replayed)
    heap, ticks = _Heap(lives), _clocks(lives.ticks())
    best: tuple[_Placed, Precedence] | None = None
    # The state has buffers of its own.
    most -= replayed.carried
    for name in Precedence:
        found = heap.judged(name, ticks, most)
        if found is not None:
            if best is None or found[0] < best[0][0]:
                best = found, name
            most = min(most, found[0])
    if best is None:
        return None
    (height, order, tops), name = best
    placed = [(b.nbytes, b.first, b.end) for b in (heap.buffers[i] for i in order)]
    rows = np.array(placed, dtype=np.int64).reshape(-1, 3)
    nbytes = max(height + replayed.carried, replayed.device_peak)
    return Packing(rows, tops, nbytes, replayed.carried, name)


def packed_bytes(problem: Problem, replayed: Replay) -> int:
    """Bytes of the allocation that XLA is expected to make for a plan.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.

    **Returns:**

    Bytes; never less than the plan's peak of live bytes.
    """
    return pack(problem, replayed).nbytes


def left_out(
    problem: Problem,
    replayed: Replay,
    limit: float,
    clock: int = 0,
    most: float = math.inf,
) -> np.ndarray | None:
    """The buffers that end above a limit, with the largest placed first.

    Such a buffer is left out, and those after it are placed as if it was not there: how
    much has to go, and where, is seen more clearly so than by what piles up on it.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.
    - `limit`: device bytes, of the allocation and of the state beside it.
    - `clock`: by which clock; 0 is ours.
    - `most`: bytes.

    **Returns:**

    Rows of `(bytes, first, end)`, as those of a `Packing`, the largest first; `None` as
    soon as they are known to have more than `most` bytes.
    """
    lives = Lives(problem, replayed)
    ticks = lives.ticks()
    if clock:
        ticks = _clocks(ticks)[clock]
    return _Heap(lives).left_out(ticks, limit - replayed.carried, most)


def clocks_over(problem: Problem, replayed: Replay, limit: float) -> list[int]:
    """The clocks by which a plan takes more than a limit, with the largest first.

    **Arguments:** the first three of `left_out`.
    """
    lives = Lives(problem, replayed)
    heap, here = _Heap(lives), limit - replayed.carried
    every = enumerate(_clocks(lives.ticks()))
    return [i for i, ticks in every if heap.left_out(ticks, here, 0.0) is None]


class _Heap:
    """The buffers of a plan, to be placed by one clock or another."""

    def __init__(self, lives: Lives):
        self.buffers = sorted(lives.buffers, key=lambda b: b.born)
        fields = [(b.nbytes, b.born, b.dead, b.handed) for b in self.buffers]
        rows = np.array(fields, dtype=np.int64).reshape(-1, 4)
        self.size, self.born, self.dead, self.handed = rows.T

    def judged(
        self, name: Precedence, clocks: Sequence[np.ndarray], most: float
    ) -> _Placed | None:
        """What is expected: the worst, with the largest first of all clocks but one."""
        spare = len(clocks) // _OTHERS if name is Precedence.LARGEST else 0
        found: list[_Placed] = []
        for ticks in clocks:
            placed = self._placed(name, ticks, most)
            if placed is not None:
                found.append(placed)
                continue
            spare -= 1
            if spare < 0:
                return None
        return sorted(found, key=lambda placed: placed[0])[-1 - spare]

    def left_out(
        self, ticks: np.ndarray, limit: float, most: float
    ) -> np.ndarray | None:
        """See `left_out`; the limit is that of this allocation."""
        allocation, rows = _Allocation(len(self.buffers)), []
        for i in self._order(Precedence.LARGEST, ticks).tolist():
            b = self.buffers[i]
            if allocation.place(b.nbytes, b.born, b.dead, limit) is None:
                rows.append((b.nbytes, b.first, b.end))
                most -= b.nbytes
                if most < 0:
                    return None
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def _placed(
        self, name: Precedence, ticks: np.ndarray, most: float
    ) -> _Placed | None:
        order = self._order(name, ticks)
        allocation, tops = _Allocation(len(order)), []
        for i in order.tolist():
            b = self.buffers[i]
            top = allocation.place(b.nbytes, b.born, b.dead, most)
            if top is None:
                return None
            tops.append(top)
        return max(tops, default=0), order, np.array(tops, dtype=np.int64)

    def _order(self, name: Precedence, ticks: np.ndarray) -> np.ndarray:
        born, dead = self.born, self.dead
        # What takes a place over counts in one of the two orders only.
        if name is Precedence.LARGEST:
            own = ticks[np.minimum(self.handed, dead)] - ticks[born]
            return np.lexsort((-own, -self.size))
        return np.lexsort((-self.size, ticks[born] - ticks[dead]))


def _clocks(ticks: np.ndarray) -> list[np.ndarray]:
    """Ours, and others like it."""
    draw, passed = np.random.default_rng(0), np.diff(ticks, prepend=0)
    factors = np.exp(draw.normal(0.0, _WRONG, (_CLOCKS - 1, len(passed))))
    return [ticks, *np.cumsum(passed * factors, axis=1)]


class _Allocation:
    """Buffers that have their places, the lowest first."""

    def __init__(self, most: int):
        self._lows: list[int] = []
        # By buffer: when it is born and dead, where it begins and ends.
        self._rows = np.empty((4, most), dtype=np.int64)

    def place(self, nbytes: int, born: int, dead: int, limit: float) -> int | None:
        """Places a buffer in the smallest gap that is free for its whole life.

        Returns the offset of its end. If that is above the limit it is not placed, and
        `None` is returned.
        """
        low = self._best_fit(nbytes, born, dead)
        high = low + nbytes
        if high > limit:
            return None
        count, at = len(self._lows), bisect.bisect(self._lows, low)
        self._lows.insert(at, low)
        self._rows[:, at + 1 : count + 1] = self._rows[:, at:count]
        self._rows[:, at] = born, dead, low, high
        return high

    def _best_fit(self, nbytes: int, born: int, dead: int) -> int:
        births, deaths, lows, highs = self._rows[:, : len(self._lows)]
        meets = ((births < dead) & (deaths > born)).nonzero()[0]
        if not meets.size:
            return 0
        gaps, ends = lows[meets], np.maximum.accumulate(highs[meets])
        gaps[1:] -= ends[:-1]
        fits = (gaps >= nbytes).nonzero()[0]
        if not fits.size:
            return int(ends[-1])
        smallest = fits[gaps[fits].argmin()]
        return int(ends[smallest - 1]) if smallest else 0
