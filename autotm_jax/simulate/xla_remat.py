"""XLA's own rematerialisation, on a problem: what frees most is computed again.

The rule stands in `solve/largest_first.py`; here the step is simulated as it leaves it.
"""

from __future__ import annotations

from ..solve import Problem, largest_first
from .outcome import Outcome
from .playing import simulate


def xla_rematerialisation(problem: Problem) -> Outcome:
    """A step as XLA's pass leaves it.

    **Arguments:**

    - `problem`: the step; its device limit is the pass's.

    **Returns:**

    An `Outcome`. If it takes more than the device limit, its note says so.
    """
    schedule = largest_first(problem)
    return simulate(problem, schedule).outcome("XLA's rematerialisation")
