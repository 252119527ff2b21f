"""What is done to every plan that a search has found."""

from __future__ import annotations

from .problem import Problem
from .schedule import Schedule
from .shorten import shorten
from .tidy import tidy
from .unnest import unnest


def polish(problem: Problem, schedule: Schedule) -> Schedule:
    """A plan that XLA carries out as it is written, and that is as good.

    **Arguments:**

    - `problem`, `schedule`: a schedule that passes the checker.

    **Returns:**

    A `Schedule` that passes it, too.
    """
    return unnest(problem, shorten(problem, tidy(problem, schedule)))
