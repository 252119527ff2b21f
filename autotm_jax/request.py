"""What a user asks of the planner."""

from __future__ import annotations

import dataclasses

from .budget import Budget
from .machine import Machine, Target
from .solve import Formulation, SolverOptions


UNLIMITED = 2**62
"""A host budget that limits nothing."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked for.

    - `target`: what to compile for.
    - `budget`, `host_budget`: as `parse_budget` and `parse_host_budget` return them.
    - `measured`: whether costs are timed on the target, which then is here.
    - `solver`: what the solver may take.
    - `formulation`: which boolean program places the values.
    """

    target: Target
    budget: Budget
    host_budget: int | None
    measured: bool
    solver: SolverOptions
    formulation: Formulation = Formulation.JOINT

    @property
    def is_least(self) -> bool:
        """Whether it is as little memory as possible that was asked for."""
        return self.budget == "min"

    def of(self, machine: Machine) -> Request:
        """The same, of a machine that is described in another way."""
        target = dataclasses.replace(self.target, machine=machine)
        return dataclasses.replace(self, target=target)
