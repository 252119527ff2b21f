"""How XLA packs buffers: live bytes are not yet an allocation.

XLA gives every temporary a fixed offset in one allocation. It places buffers one after
the other, largest first and of those longest-lived first (or the other way round; the
better of the two is taken), each into the smallest gap that is free for its whole life.
What a set of lifetimes takes is therefore more than its largest sum of live bytes; by
how much depends on the plan. (XLA: `GlobalDecreasingSizeBestFitHeap`.)

How long a life is goes by *ticks*: by how many others begin or end meanwhile. Among the
many buffers of one size that a network has, that decides.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .checker import Replay
from .lives import Lives
from .problem import Problem


@dataclasses.dataclass(frozen=True)
class Packing:
    """Where every buffer ends up in one allocation.

    - `buffers`: rows of `(bytes, first, end)`: from segment `first` until before
        segment `end`. A buffer that a result takes over from an operand is one.
    - `tops`: per buffer, the offset of its end.
    - `nbytes`: of the allocation, and of the state that is on the device beside it.
    """

    buffers: np.ndarray
    tops: np.ndarray
    nbytes: int


def pack(problem: Problem, replayed: Replay) -> Packing:
    """The allocation that XLA is expected to make for a plan.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.

    **Returns:**

    A `Packing`; never smaller than the plan's peak of live bytes.
    """
    lives = Lives(problem, replayed)
    buffers = sorted(lives.buffers, key=lambda b: b.born)
    ticks = lives.ticks()
    size = np.array([b.nbytes for b in buffers], dtype=np.int64)
    born = np.array([b.born for b in buffers], dtype=np.int64)
    dead = np.array([b.dead for b in buffers], dtype=np.int64)
    last = np.maximum(born, dead - 1)
    handed = np.array([b.handed for b in buffers], dtype=np.int64)
    # What takes a place over counts in one of the two orders only.
    own, life = ticks[np.minimum(handed, last)] - ticks[born], ticks[last] - ticks[born]
    spatial = np.lexsort((-own, -size))
    temporal = np.lexsort((-size, -life))
    tried = [(o, _tops(size[o], born[o], dead[o])) for o in (spatial, temporal)]
    order, tops = min(tried, key=lambda t: t[1].max(initial=0))
    placed = [(buffers[i].nbytes, buffers[i].first, buffers[i].end) for i in order]
    # The state has buffers of its own.
    nbytes = int(tops.max(initial=0)) + replayed.carried
    rows = np.array(placed, dtype=np.int64).reshape(-1, 3)
    return Packing(rows, tops, max(nbytes, replayed.device_peak))


def packed_bytes(problem: Problem, replayed: Replay) -> int:
    """Bytes of the allocation that XLA is expected to make for a plan.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.

    **Returns:**

    Bytes; never less than the plan's peak of live bytes.
    """
    return pack(problem, replayed).nbytes


def _tops(size: np.ndarray, born: np.ndarray, dead: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(size), dtype=np.int64)
    for i, nbytes in enumerate(size):
        meets = (born[:i] < dead[i]) & (dead[:i] > born[i])
        low = offsets[:i][meets]
        high = low + size[:i][meets]
        offsets[i] = _best_fit(low, high, int(nbytes))
    return offsets + size


def _best_fit(low: np.ndarray, high: np.ndarray, nbytes: int) -> int:
    if not low.size:
        return 0
    order = np.argsort(low)
    low, high = low[order], np.maximum.accumulate(high[order])
    starts = np.concatenate([[0], high[:-1]])
    gaps = low - starts
    fits = np.flatnonzero(gaps >= nbytes)
    if fits.size:
        return int(starts[fits[np.argmin(gaps[fits])]])
    return int(high[-1])
