"""A plan whose allocation fits, from one whose live bytes do.

XLA's packing wastes memory in places: where a buffer does not fit into the gaps below
the limit it is put on top. Lowering the limit everywhere until it fits would be dear.
Lowered only at the segments where a buffer ends up too high, and a little more each
time, it costs what those segments cost.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from .checker import replay
from .heap import pack
from .improve import descend
from .polish import polish
from .problem import Problem
from .schedule import Schedule


# How much the limit is lowered at once, as a fraction of it, and how often.
_STEP = 0.03
_ROUNDS = 12


def repack(problem: Problem, schedule: Schedule, seconds: float) -> Schedule | None:
    """Changes a schedule until its allocation keeps the device limit.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: a schedule that passes the checker.
    - `seconds`: wall time to spend at most.

    **Returns:**

    A `Schedule` that passes the checker and packs, or `None` if none was found.
    """
    deadline = time.perf_counter() + seconds
    limit = problem.device_limit
    lowered = np.zeros(problem.segments)
    for _ in range(_ROUNDS):
        schedule = polish(problem, schedule)
        state = replay(problem, schedule)
        packing = pack(problem, state)
        if packing.nbytes <= limit:
            return schedule
        left = deadline - time.perf_counter()
        if left <= 0:
            break
        over = np.zeros(problem.segments)
        for (_, first, end), top in zip(packing.buffers, packing.tops, strict=True):
            above = top + state.carried - limit
            over[first:end] = np.maximum(over[first:end], above)
        lowered += np.clip(over, 0.0, _STEP * limit)
        held = tuple((int(b), k, k + 1) for k, b in enumerate(lowered) if b >= 1)
        tighter = dataclasses.replace(problem, small=(*problem.small, *held))
        found = descend(tighter, schedule, left)
        if found is None:
            break
        schedule = found
    return None
