"""What a solver finds of a model, and the units that it is in."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .schedule import Pick, Schedule


MIB = float(2**20)
MS = 1e3

# HiGHS takes this for infinite.
ANYTHING = 1e20


@dataclasses.dataclass(frozen=True)
class Answer:
    """A solver's vector, its objective, and what it proved, in the model's units.

    - `x`: a value per column.
    - `picks`: segments that run by another variant.
    - `objective`, `bound`: milliseconds, or MiB for least memory.
    - `reduced_costs`: per column, of a relaxation.
    - `schedule`: where it is not what the columns stand for.
    - `policy`: the name of the simple policy that it is, or an empty string.
    """

    x: np.ndarray
    picks: tuple[Pick, ...]
    objective: float
    bound: float
    reduced_costs: np.ndarray
    schedule: Schedule | None = None
    policy: str = ""


@dataclasses.dataclass(frozen=True)
class Posed:
    """A relaxation as it was solved.

    - `problem`: as the solver had it.
    - `variables`: which of its variables the columns are.
    - `variants`: by which of its variables segments are run by which variants.
    - `constant`: what the objective is more than the solver's.
    """

    problem: dict[str, Any]
    variables: np.ndarray
    variants: dict[int, Pick]
    constant: float

    def picks(self, x: np.ndarray) -> tuple[Pick, ...]:
        """The variants that a vector of the solver takes."""
        return tuple(pick for at, pick in self.variants.items() if x[at] > 0.5)


INFEASIBLE = Answer(np.zeros(0), (), float("inf"), float("inf"), np.zeros(0))
"""Stands for: there is no such vector."""
