"""Whether the state of a step moves: only where that is worth it.

A state on the host is one that other functions do not take, and deciding about it takes
longer. So a step is planned with its state on the device first, and with a state that
may move where nothing fits without that, or only slowly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from .budget import format_bytes
from .compile import Evidence
from .errors import InfeasibleBudget
from .machine import PINNED_CAP
from .plan import Plan
from .planning import UNLIMITED, Planner


# A plan that takes no more than this many times the step without a limit is not worth
# moving the state for.
_FAST_ENOUGH = 1.5

# Nor is one that would be faster by no more than this factor with the state moving.
_PAYS = 1.02
# The least memory is that with a state that moves if the state is at least this part
# of the least without. Else the step would be much slower for a little memory.
_MATTERS = 0.25

_STAYS = (
    "the state stays on the device, where in_shardings or out_shardings put it; "
    "without them it is divided as its arrays are, and may move"
)


class StatefulPlanner:
    """Plans one traced step whose state stays on the device if it can.

    **Arguments:**

    - `make`: makes the `Planner` of the step, given which state may move, and how much
        pinned host memory it may take, if that is not what was asked for.
    - `carried`: by the number of an argument, that of the result which takes its place
        in the next call.
    - `is_told`: whether the user has said where it is, and so it stays.
    """

    def __init__(
        self,
        make: Callable[[Mapping[int, int], int | None], Planner],
        carried: Mapping[int, int],
        is_told: bool = False,
    ):
        self.carried, self._make = {} if is_told else carried, make
        self._note = _STAYS if is_told and carried else ""
        self._planner = make({}, None)

    @property
    def is_shared(self) -> bool:
        """Whether it plans for devices of several processes."""
        return self._planner.is_shared

    def first(self) -> Plan:
        """As `Planner.first`."""
        is_least = self._planner.request.budget == "min"
        if self.carried and is_least:
            state = self._planner.bytes_of(self.carried)
            if state >= _MATTERS * self._planner.least_bytes:
                self._lets_move()
        try:
            plan = self._planner.first()
        except InfeasibleBudget as error:
            return self._otherwise(error)
        if self._note and not plan.is_untouched:
            note = "; ".join(filter(None, (plan.note, self._note)))
            return dataclasses.replace(plan, note=note)
        moves = self._planner.carried or not self.carried
        if plan.is_untouched or is_least or moves:
            return plan
        assert plan.seconds is not None and plan.unconstrained_seconds is not None
        if plan.seconds <= _FAST_ENOUGH * plan.unconstrained_seconds:
            return plan
        moving = self._make(self.carried, None)
        try:
            other = moving.first()
        except InfeasibleBudget:
            return plan
        if other.seconds is None or _PAYS * other.seconds >= plan.seconds:
            return plan
        self._planner = moving
        return other

    def tighter(self, plan: Plan, evidence: Evidence) -> Plan:
        """As `Planner.tighter`."""
        try:
            return self._planner.tighter(plan, evidence)
        except InfeasibleBudget as error:
            return self._otherwise(error)

    def untouched_if_smaller(self, plan: Plan, evidence: Evidence) -> Plan:
        """As `Planner.untouched_if_smaller`."""
        return self._planner.untouched_if_smaller(plan, evidence)

    def _lets_move(self) -> bool:
        """Plans with a state that may move from here on, if it did not."""
        if self._planner.carried or not self.carried:
            return False
        self._planner = self._make(self.carried, None)
        return True

    def _otherwise(self, error: InfeasibleBudget) -> Plan:
        """A plan whose state moves, where none is left whose state stays."""
        if not self._lets_move():
            raise self._with_what_is_missing(error)
        try:
            return self._planner.first()
        except InfeasibleBudget as other:
            raise self._with_what_is_missing(other) from None

    def _with_what_is_missing(self, error: InfeasibleBudget) -> InfeasibleBudget:
        """The same error, that also says so if it is the host that is too small."""
        if self._note:
            return InfeasibleBudget(f"{error}\nNote that {self._note}.", error.least)
        limit = self._planner.host_limit
        if limit >= self._planner.plain_bytes:
            return error
        try:
            plan = self._make(self.carried, UNLIMITED).first()
        except InfeasibleBudget:
            return error
        if plan.host_bytes <= limit:
            return error
        return InfeasibleBudget(
            f"{error}\nMore host memory would do, too: there is a plan that takes "
            f"{format_bytes(plan.host_bytes)} of it, and it may take "
            f"{format_bytes(limit)}. That is the least of host_budget, of what the "
            f"machine has, and of what JAX lends, which {PINNED_CAP} sets.",
            least=error.least,
        )
