"""What is known about a signature of a step, and what that is wanted for."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from .errors import AutoTMError
from .plan import Plan
from .stateful import StatefulPlanner


@dataclasses.dataclass
class Signature:
    """What is known about one signature of a step, which is one traced jaxpr.

    JAX traces a function once per signature and context and then hands out the same
    jaxpr; `traced` keeps it alive, so that its identity is a key. `state` are the
    numbers of the flat arguments that are carried from call to call.
    """

    traced: Any
    plan: Plan
    planner: StatefulPlanner | None = None
    is_final: bool = False
    state: frozenset[int] = frozenset()


class Use(enum.Enum):
    """What a step is planned and compiled for."""

    CALL = "call"
    PLACE = "place"
    LOWER = "lower"
    VERIFY = "verify"

    @property
    def runs(self) -> bool:
        """Whether its arguments are arrays, on a device that is here."""
        return self in (Use.CALL, Use.PLACE)


class NotPlanned(AutoTMError):
    """Raised inside a trace to say that this signature has no plan yet."""

    def __init__(self) -> None:
        super().__init__(
            "JAX traces this step anew whenever it is compiled, so no plan is ever "
            "used. Something changes JAX's settings on the way: look for "
            "jax.config.update in what the step calls."
        )


def unplanned(*args: Any, **kwargs: Any) -> Any:
    """Stands for the planned jit before there is one."""
    del args, kwargs
    raise NotPlanned
