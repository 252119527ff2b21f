"""The time of copies of which there is only one at once, as in AutoTM's programs."""

from __future__ import annotations

import numpy as np

from .checker import Replay
from .problem import Problem
from .schedule import Schedule


def one_engine(
    problem: Problem, schedule: Schedule, replayed: Replay
) -> tuple[np.ndarray, float]:
    """What copies take if both directions add up, as in AutoTM's programs.

    **Arguments:**

    - `problem`, `schedule`, `replayed`: a schedule, and what the checker says of it.

    **Returns:**

    Seconds beside each segment, and seconds in which everything waits.
    """
    link, compute = problem.link, np.array(problem.compute)
    tensors = {tensor.value: tensor for tensor in problem.tensors}
    beside, waits = np.zeros(problem.segments), float(sum(replayed.waits))
    copies = [(store, link.d2h) for store in schedule.stores]
    for item, bandwidth in (*copies, *((f, link.h2d) for f in schedule.fetches)):
        first, end = item.window
        tensor, total = tensors[item.value], compute[first:end].sum()
        seconds = tensor.times * tensor.nbytes / bandwidth
        if total > 0:
            beside[first:end] += seconds * compute[first:end] / total
        elif end > first:  # beside segments that take no time
            waits += seconds
    return beside, waits
