"""A plan whose allocation fits, from one whose live bytes do.

XLA's packing wastes memory in places: where a buffer does not fit into the gaps below
the limit it is put on top. A plan is shaken until it fits. Where that does not help,
the limit is lowered: not everywhere, which would be dear, but at the segments where a
buffer ends up too high, and a little more each time.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .checker import replay
from .deadline import Deadline
from .heap import pack, packed_bytes
from .improve import descend
from .polish import polish
from .problem import Problem
from .schedule import Schedule
from .shake import shake


# The parts of the time for shaking what was given, and of the rest for lower limits.
_SHAKEN = 0.7
_LOWERED = 0.8

# How much the limit is lowered at once, as a fraction of it, and how often.
_STEP = 0.03
_ROUNDS = 12


def repack(
    problem: Problem, schedule: Schedule, seconds: float, enough: float = 0.0
) -> Schedule | None:
    """Changes a schedule until its allocation keeps the device limit.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: a schedule that passes the checker.
    - `seconds`: wall time to spend at most.
    - `enough`: seconds of the step at which it is fast enough.

    **Returns:**

    A `Schedule` that passes the checker and packs, or `None` if none was found.
    """
    deadline = Deadline(seconds)
    schedule = polish(problem, schedule)
    if packed_bytes(problem, replay(problem, schedule)) <= problem.device_limit:
        return schedule
    shaken = shake(problem, schedule, _SHAKEN * seconds, enough)
    if shaken is not None:
        return shaken
    lower = _lowered(problem, schedule, _LOWERED * deadline.left())
    if lower is None:
        return None
    return shake(problem, lower, deadline.left(), enough)


def _lowered(problem: Problem, schedule: Schedule, seconds: float) -> Schedule | None:
    deadline = Deadline(seconds)
    limit = problem.device_limit
    lowered = np.zeros(problem.segments)
    for _ in range(_ROUNDS):
        schedule = polish(problem, schedule)
        packing = pack(problem, replay(problem, schedule))
        if packing.nbytes <= limit:
            return schedule
        if deadline.left() <= 0:
            break
        over = np.zeros(problem.segments)
        for (_, first, end), top in zip(packing.buffers, packing.tops, strict=True):
            above = top + packing.carried - limit
            over[first:end] = np.maximum(over[first:end], above)
        lowered += np.clip(over, 0.0, _STEP * limit)
        held = tuple((int(b), k, k + 1) for k, b in enumerate(lowered) if b >= 1)
        tighter = dataclasses.replace(problem, small=(*problem.small, *held))
        found = descend(tighter, schedule, deadline.left())
        if found is None:
            break
        schedule = found
    return None
