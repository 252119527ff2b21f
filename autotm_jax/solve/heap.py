"""How XLA packs buffers: live bytes are not yet an allocation.

XLA gives every temporary a fixed offset in one allocation. It places buffers one after
the other, largest first (or longest-lived first; the better of the two is taken),
each into the smallest gap that is free for its whole life. What a set of lifetimes
takes is therefore more than its largest sum of live bytes; by how much depends on the
plan. (XLA: `GlobalDecreasingSizeBestFitHeap`.)
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .checker import Replay
from .problem import Problem


# Bytes by which a workspace may be off for a result to be in the place of an operand.
_PAGE = 4096


@dataclasses.dataclass(frozen=True)
class Packing:
    """Where every buffer ends up in one allocation.

    - `buffers`: rows of `(bytes, first, end)`: from segment `first` until before `end`.
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
    sizes = {t.value: t.nbytes for t in problem.tensors}
    buffers = [(sizes[v], first, end) for v, first, end in replayed.stays]
    buffers += problem.small
    stacked = {t.value: t.stacked for t in problem.tensors}
    stacks = [(stacked[v], first, end) for v, first, end in replayed.stacks]
    # The rest lives inside one segment: workspace, here or of a recomputation.
    rest = replayed.device - replayed.carried
    for nbytes, first, end in (*buffers, *stacks):
        rest[first:end] -= nbytes
    buffers += [(int(extra), k, k + 1) for k, extra in enumerate(rest) if extra >= 1]
    array, whole = (
        np.array(b, dtype=np.int64).reshape(-1, 3) for b in (buffers, stacks)
    )
    # No kernel makes or reads a stack, but slices of it.
    array = np.concatenate([array, _in_place(array, rest), whole])
    size, life = array[:, 0], array[:, 2] - array[:, 1]
    spatial = np.lexsort((-life, -size))
    temporal = np.lexsort((-size, -life))
    tried = [(array[order], _tops(array[order])) for order in (spatial, temporal)]
    placed, tops = min(tried, key=lambda t: t[1].max(initial=0))
    # The state has buffers of its own.
    nbytes = int(tops.max(initial=0)) + replayed.carried
    return Packing(placed, tops, max(nbytes, replayed.device_peak))


def _in_place(buffers: np.ndarray, rest: np.ndarray) -> np.ndarray:
    # Where a segment takes less than what it reads and makes, results take the place
    # of operands that die in it: these are gone when the segment begins. If that saves
    # more than the segment does, it works in the rest: further buffers, returned.
    more = []
    for k in np.flatnonzero(rest < -_PAGE):
        missing = -rest[k]
        dying = np.flatnonzero((buffers[:, 2] == k + 1) & (buffers[:, 1] < k))
        born = buffers[buffers[:, 1] == k, 0]
        for i in dying[np.argsort(-buffers[dying, 0])]:
            is_replaced = buffers[i, 0] <= 2 * missing and buffers[i, 0] in born
            if buffers[i, 0] <= missing + _PAGE or is_replaced:
                buffers[i, 2] = k
                missing -= buffers[i, 0]
            if missing < _PAGE:
                break
        if missing < 0:
            more.append((int(-missing), k, k + 1))
    return np.array(more, dtype=np.int64).reshape(-1, 3)


def packed_bytes(problem: Problem, replayed: Replay) -> int:
    """Bytes of the allocation that XLA is expected to make for a plan.

    **Arguments:**

    - `problem`, `replayed`: a problem and a schedule replayed on it.

    **Returns:**

    Bytes; never less than the plan's peak of live bytes.
    """
    return pack(problem, replayed).nbytes


def _tops(buffers: np.ndarray) -> np.ndarray:
    count = len(buffers)
    offsets = np.zeros(count, dtype=np.int64)
    for i, (nbytes, first, end) in enumerate(buffers):
        placed = buffers[:i]
        meets = (placed[:, 1] < end) & (placed[:, 2] > first)
        low = offsets[:i][meets]
        high = low + placed[:, 0][meets]
        offsets[i] = _best_fit(low, high, int(nbytes))
    return offsets + buffers[:, 0]


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
