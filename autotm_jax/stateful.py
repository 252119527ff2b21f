"""Whether the state of a step moves: only where that is worth it.

A state on the host is one that other functions do not take, and deciding about it takes
longer. So a step is planned with its state on the device first, and with a state that
may move where nothing fits without that, or only slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .compile import Evidence
from .errors import InfeasibleBudget
from .plan import Plan
from .planning import Planner


# A plan that takes no more than this many times the step without a limit is not worth
# moving the state for.
_FAST_ENOUGH = 1.5

# Nor is one that would be faster by no more than this factor with the state moving.
_PAYS = 1.02


class StatefulPlanner:
    """Plans one traced step whose state stays on the device if it can.

    **Arguments:**

    - `make`: makes the `Planner` of the step, given which state may move.
    - `carried`: by the number of an argument, that of the result which takes its place
        in the next call.
    """

    def __init__(
        self, make: Callable[[Mapping[int, int]], Planner], carried: Mapping[int, int]
    ):
        self.carried = carried
        self._planners = [make({}), make(carried)] if carried else [make({})]
        if carried and self._planners[0].request.budget == "min":
            del self._planners[0]

    @property
    def _planner(self) -> Planner:
        return self._planners[0]

    @property
    def is_shared(self) -> bool:
        """Whether it plans for devices of several processes."""
        return self._planner.is_shared

    def first(self) -> Plan:
        """As `Planner.first`."""
        try:
            plan = self._planner.first()
        except InfeasibleBudget:
            if not self._lets_move():
                raise
            return self._planner.first()
        if len(self._planners) == 1 or plan.is_untouched:
            return plan
        assert plan.seconds is not None and plan.unconstrained_seconds is not None
        if plan.seconds <= _FAST_ENOUGH * plan.unconstrained_seconds:
            return plan
        try:
            other = self._planners[1].first()
        except InfeasibleBudget:
            return plan
        assert other.seconds is not None
        if other.is_untouched or _PAYS * other.seconds >= plan.seconds:
            return plan
        self._lets_move()
        return other

    def tighter(self, plan: Plan, evidence: Evidence) -> Plan:
        """As `Planner.tighter`."""
        try:
            return self._planner.tighter(plan, evidence)
        except InfeasibleBudget:
            if not self._lets_move():
                raise
            return self._planner.first()

    def untouched_if_smaller(self, plan: Plan, evidence: Evidence) -> Plan:
        """As `Planner.untouched_if_smaller`."""
        return self._planner.untouched_if_smaller(plan, evidence)

    def _lets_move(self) -> bool:
        """Plans with a state that may move from here on, if it did not."""
        if len(self._planners) == 1:
            return False
        del self._planners[0]
        return True
