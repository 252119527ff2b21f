"""XLA's own rematerialisation, on a problem: what frees most is computed again.

XLA's pass (`HloRematerialization`) walks through the schedule. Where memory is over the
limit, it takes the value that frees the most bytes there, whatever it costs to compute
(its cost of a candidate is the limit divided by the bytes that it frees), and computes
it again for its next use; so on until memory is under the limit there, or nothing is
left to take. Then it goes on, also if it has not kept the limit.

The pass sees instructions after fusion, and takes chains of them; here a candidate is a
tensor with a recipe. What it compresses or moves to the host is another mode of it. All
times are simulated.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

from ..solve import Problem, Recompute, Schedule, replay
from .outcome import Outcome
from .playing import simulate


def xla_rematerialisation(problem: Problem) -> Outcome:
    """A step as XLA's pass leaves it.

    **Arguments:**

    - `problem`: the step; its device limit is the pass's.

    **Returns:**

    An `Outcome`. If it takes more than the device limit, its note says so.
    """
    schedule = rematerialised(problem)
    return simulate(problem, schedule).outcome("XLA's rematerialisation")


def rematerialised(problem: Problem) -> Schedule:
    """What the pass computes again.

    **Arguments:**

    - `problem`: the step; its device limit is the pass's.

    **Returns:**

    A `Schedule` of recomputations. It may not keep the limit.
    """
    unlimited = dataclasses.replace(problem, device_limit=math.inf)
    chosen, refused = Schedule(), set[Recompute]()
    state = replay(unlimited, chosen)
    for segment in range(problem.segments):
        while state.device[segment] > problem.device_limit:
            for again in _candidates(problem, segment):
                if again in refused or again in chosen.recomputes:
                    continue
                trial = Schedule(recomputes=tuple(sorted((*chosen.recomputes, again))))
                found = replay(unlimited, trial)
                if not found.faults and found.device[segment] < state.device[segment]:
                    chosen, state = trial, found
                    break
                refused.add(again)
            else:
                break  # over the limit it stays
    return chosen


def _candidates(problem: Problem, segment: int) -> list[Recompute]:
    """What could be away at a segment, the largest first."""
    found: list[tuple[int, Recompute]] = []
    for tensor in problem.tensors:
        if tensor.recipe is None:
            continue
        for a, b in itertools.pairwise(tensor.touches):
            if a < segment < b and b in tensor.recipe.seconds:
                found.append((-tensor.stacked, Recompute(tensor.value, b)))
    return [again for _, again in sorted(found)]
