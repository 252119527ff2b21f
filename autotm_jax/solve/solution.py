"""What a solver may take, and what it answered."""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers

import numpy as np

from .schedule import Schedule


class Status(enum.Enum):
    """How a plan was found. The values are for the user."""

    UNTOUCHED = "plain jax.jit fits the budget: nothing is changed"
    UNSUPPORTED = "the step could not be planned: it runs as jax.jit would"
    OPTIMAL = "solved to within the MIP gap"
    REPACKED = "solved, then changed until it packs: no gap is proved for that"
    TIME_LIMIT = "the solver stopped at its time limit: its best incumbent is used"
    ROUNDED = "a local search found more than the solver in its time, and is used"
    POLICY = "a simple policy is faster than what the solver found, and is used"
    GREEDY = "the solver found no plan in time: a greedy plan is used"
    INFEASIBLE = "no plan meets the limits"


class Formulation(enum.Enum):
    """Which boolean program places the tensors.

    - `STATIC`, `SYNCHRONOUS`, `ASYNCHRONOUS`: AutoTM's three.
    - `JOINT`: the one that also recomputes, and overlaps copies with many segments.
    """

    STATIC = "static"
    SYNCHRONOUS = "synchronous"
    ASYNCHRONOUS = "asynchronous"
    JOINT = "joint"


@dataclasses.dataclass(frozen=True)
class SolverOptions:
    """What the solver may take.

    - `time_limit`: seconds of search for one order of the step, kept to a tenth and
        half a second; a tight budget may need two orders, and a conditional with a
        large branch takes up to three more searches.
    - `gap`: relative MIP gap at which it stops.
    - `threads`: how many it uses; `None` leaves it to the solver.

    **Raises:**

    - `ValueError`: if one of them is no limit.
    """

    time_limit: float = 12.0
    gap: float = 0.01
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, example in (("time_limit", "60 seconds"), ("gap", "0.01")):
            value = getattr(self, name)
            # No comparison with NaN holds.
            if not isinstance(value, numbers.Real) or not 0 <= float(value) < math.inf:
                raise ValueError(
                    f"The solver's {name} is {value!r}: give a finite number that is "
                    f"not less than zero, as {example}."
                )
        is_count = isinstance(self.threads, numbers.Integral)
        if self.threads is not None and not (is_count and self.threads >= 1):
            raise ValueError(
                f"The solver's threads are {self.threads!r}: give one or more, or None "
                "for as many as it likes."
            )


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a solver answered.

    - `status`: see `Status`.
    - `schedule`: `None` if there is none.
    - `objective`, `bound`: seconds (or bytes, for least memory), found and proved.
    - `seconds`: wall time of the search.
    - `note`: what else there is to say: the policy that won, or how a solver failed.
    - `solver`: which one was asked, with its version; empty if none was.
    """

    status: Status
    schedule: Schedule | None
    objective: float
    bound: float
    seconds: float
    note: str = ""
    solver: str = ""

    @property
    def gap(self) -> float:
        """Relative MIP gap."""
        if not np.isfinite(self.objective) or not np.isfinite(self.bound):
            return float("inf")
        return max(0.0, self.objective - self.bound) / max(1e-12, abs(self.objective))
