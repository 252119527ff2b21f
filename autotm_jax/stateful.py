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
from .planning import Planner
from .request import UNLIMITED


# A plan that takes no more than this many times the step without a limit is not worth
# moving the state for.
_FAST_ENOUGH = 1.5

# Nor is one that would be faster by no more than this factor with the state moving.
_PAYS = 1.02

# The least memory is that with a state that moves if the state is at least this part
# of the least without. Else the step would be much slower for a little memory.
_MATTERS = 0.25

# How often a plan whose state stays is tightened, before the state moves instead.
_MOST_TIGHTENED = 2

_STAYS = (
    "the state stays on the device, as in_shardings or out_shardings say in which "
    "memory or in which layout arrays are; with shardings alone it may move"
)


class StatefulPlanner:
    """Plans one traced step whose state stays on the device if it can.

    **Arguments:**

    - `make`: makes the `Planner` of the step, given which state may move, and how much
        pinned host memory it may take, if that is not what was asked for.
    - `carried`: by the number of an argument, that of the result which takes its place
        in the next call.
    - `is_told`: whether the user has said in which memory it is, and so it stays.
    """

    def __init__(
        self,
        make: Callable[[Mapping[int, int], int | None], Planner],
        carried: Mapping[int, int],
        is_told: bool = False,
    ):
        self.carried, self._make = {} if is_told else carried, make
        self._note = _STAYS if is_told and carried else ""
        self._planner, self._tightened = make({}, None), 0

    @property
    def is_shared(self) -> bool:
        """Whether it plans for devices of several processes."""
        return self._planner.is_shared

    def first(self) -> Plan:
        """As `Planner.first`."""
        is_least = self._planner.request.budget == "min"
        if self.carried and is_least:
            state = self._planner.argument_bytes(self.carried)
            if state >= _MATTERS * self._planner.least_bytes:
                self._lets_move()
        try:
            plan = self._planner.first()
        except InfeasibleBudget as error:
            if not self._lets_move():
                raise self._with_what_is_missing(error) from None
            try:
                return self._planner.first()
            except InfeasibleBudget as other:
                raise self._with_what_is_missing(other) from None
        return self._noted(plan) if is_least else self._faster(plan)

    def _faster(self, plan: Plan) -> Plan:
        """The same plan, or one whose state moves if that pays."""
        moves = self._planner.carried or not self.carried
        if plan.is_untouched or moves:
            return self._noted(plan)
        assert plan.seconds is not None and plan.unconstrained_seconds is not None
        if plan.seconds <= _FAST_ENOUGH * plan.unconstrained_seconds:
            return plan
        moving = self._make(self.carried, None)
        try:
            other = moving.first()
        except InfeasibleBudget:
            return plan
        except Exception as error:  # noqa: BLE001 - there is a plan
            note = "the state stays on the device, as planning its moves failed"
            return _with_note(plan, f"{note}: {type(error).__name__}: {error}")
        if other.seconds is None or _PAYS * other.seconds >= plan.seconds:
            return plan
        self._planner = moving
        return other

    def tighter(self, plan: Plan, evidence: Evidence) -> Plan:
        """As `Planner.tighter`."""
        self._tightened += 1
        if self._tightened > _MOST_TIGHTENED and self._lets_move():
            return self._planner.first()
        try:
            return self._noted(self._planner.tighter(plan, evidence))
        except InfeasibleBudget:
            if not self._lets_move():
                raise
            return self._planner.first()

    def another(self, plan: Plan, evidence: Evidence, number: int) -> Plan | None:
        """As `Planner.another`."""
        following = self._planner.another(plan, evidence, number)
        if following is None or self._note in following.note:
            return following  # it was compiled before, or there is nothing to say
        return self._noted(following)

    def untouched_if_smaller(self, plan: Plan, evidence: Evidence) -> Plan:
        """As `Planner.untouched_if_smaller`."""
        return self._planner.untouched_if_smaller(plan, evidence)

    def _lets_move(self) -> bool:
        """Plans with a state that may move from here on, if it did not."""
        moves = self._planner.carried or not self.carried
        if moves or not self._planner.host_limit:
            return False
        self._planner = self._make(self.carried, None)
        return True

    def _noted(self, plan: Plan) -> Plan:
        if not self._note or plan.is_untouched:
            return plan
        return _with_note(plan, self._note)

    def _with_what_is_missing(self, error: InfeasibleBudget) -> InfeasibleBudget:
        """The same error, that also says so if it is the host that is too small."""
        if self._note:
            return InfeasibleBudget(f"{error}\nNote that {self._note}.", error.least)
        limit = self._planner.host_limit
        if limit >= self._planner.live_bytes:
            return error
        try:
            plan = self._make(self.carried, UNLIMITED).first()
        except Exception:  # noqa: BLE001 - this is not what was asked for
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


def _with_note(plan: Plan, note: str) -> Plan:
    text = "; ".join(filter(None, (plan.note, note)))
    return dataclasses.replace(plan, note=text)
