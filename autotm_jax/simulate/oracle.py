"""The oracle: every segment by its fastest variant, as if memory had no end.

AutoTM compares its plans for a GPU with it: the sum of the fastest times of all
kernels, with nothing moved. All times are simulated.
"""

from __future__ import annotations

from ..solve import Pick, Problem, Schedule
from .outcome import Outcome
from .playing import simulate


def oracle(problem: Problem) -> Outcome:
    """A step that nothing holds up.

    **Arguments:**

    - `problem`: the step.

    **Returns:**

    An `Outcome`, with the memory that this would take.
    """
    picks = []
    for segment, variants in sorted(problem.variants.items()):
        seconds = [problem.compute[segment], *(v.seconds for v in variants)]
        fastest = min(range(len(seconds)), key=seconds.__getitem__)
        if fastest:
            picks.append(Pick(segment, fastest))
    return simulate(problem, Schedule(picks=tuple(picks))).outcome("oracle")
