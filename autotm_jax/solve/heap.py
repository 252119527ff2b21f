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

import dataclasses
import enum
import math
from collections.abc import Iterable, Sequence

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


def pack_within(
    problem: Problem,
    replayed: Replay,
    most: float,
    orders: Iterable[Precedence] = Precedence,
    clocks: int = _CLOCKS,
) -> Packing | None:
    """The same, or `None` as soon as it is known to take more than `most` bytes.

    With one of the `orders` only, XLA may need less; by one clock only, more or less.
    """
    if replayed.device_peak > most:
        return None
    lives = Lives(problem, replayed)
    heap, ticks = _Heap(lives), _clocks(lives.ticks(), clocks)
    best: tuple[_Placed, Precedence] | None = None
    # The state has buffers of its own.
    most -= replayed.carried
    for name in orders:
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

    def _placed(
        self, name: Precedence, ticks: np.ndarray, most: float
    ) -> _Placed | None:
        born, dead = self.born, self.dead
        # What takes a place over counts in one of the two orders only.
        if name is Precedence.LARGEST:
            own = ticks[np.minimum(self.handed, dead)] - ticks[born]
            order = np.lexsort((-own, -self.size))
        else:
            order = np.lexsort((-self.size, ticks[born] - ticks[dead]))
        tops = _tops(self.size[order], born[order], dead[order], most)
        return None if tops is None else (int(tops.max(initial=0)), order, tops)


def _clocks(ticks: np.ndarray, count: int) -> list[np.ndarray]:
    """Ours, and others like it."""
    draw, passed = np.random.default_rng(0), np.diff(ticks, prepend=0)
    factors = np.exp(draw.normal(0.0, _WRONG, (count - 1, len(passed))))
    return [ticks, *np.cumsum(passed * factors, axis=1)]


def _tops(
    size: np.ndarray, born: np.ndarray, dead: np.ndarray, most: float
) -> np.ndarray | None:
    low, high = np.zeros((2, len(size)), dtype=np.int64)
    for i, nbytes in enumerate(size):
        meets = ((born[:i] < dead[i]) & (dead[:i] > born[i])).nonzero()[0]
        low[i] = _best_fit(low[meets], high[meets], nbytes)
        high[i] = low[i] + nbytes
        if high[i] > most:
            return None
    return high


def _best_fit(low: np.ndarray, high: np.ndarray, nbytes: int) -> int:
    if not low.size:
        return 0
    order = low.argsort()
    gaps, ends = low[order], np.maximum.accumulate(high[order])
    gaps[1:] -= ends[:-1]
    fits = (gaps >= nbytes).nonzero()[0]
    if not fits.size:
        return int(ends[-1])
    smallest = fits[gaps[fits].argmin()]
    return int(ends[smallest - 1]) if smallest else 0
