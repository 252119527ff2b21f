"""A plan that was found before, applied to a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .budget import format_bytes
from .compile import Evidence
from .errors import InfeasibleBudget, PlanFileError
from .plan import Plan
from .planfile import Saved
from .planning import Planner
from .stateful import StatefulPlanner


class AppliedPlanner(StatefulPlanner):
    """Answers with a plan that is given.

    **Arguments:**

    - `make`, `carried`: as of a `StatefulPlanner`.
    - `saved`: the plan.
    """

    def __init__(
        self,
        make: Callable[[Mapping[int, int], int | None], Planner],
        carried: Mapping[int, int],
        saved: Saved,
    ):
        outline = saved.outline
        moves = outline is not None and outline.moves_state
        if moves and not carried:
            raise PlanFileError(
                f"{saved.name} does not fit this step: it has state on the host "
                "between calls. Donate the state (donate_argnums), let it move "
                "(move_state), and leave memories and layouts out of in_shardings and "
                "out_shardings."
            )
        super().__init__(make, carried if moves else {})
        if moves and not self._lets_move():
            raise PlanFileError(
                f"{saved.name} does not fit this step: it has state on the host "
                "between calls, and no host memory may be used. Raise host_budget."
            )
        self._saved = saved

    def first(self) -> Plan:
        """The plan, if it fits the step.

        **Raises:**

        - `PlanFileError`: if it does not.
        """
        return self._planner.applied(self._saved)

    def tighter(self, plan: Plan, evidence: Evidence) -> Plan:
        """There is no other plan.

        **Raises:**

        - `InfeasibleBudget`: with what this one needs.
        """
        assert plan.budget is not None
        raise InfeasibleBudget(
            f"XLA needs {format_bytes(evidence.device_bytes)} for the plan in "
            f"{self._saved.name}, and the budget is {format_bytes(plan.budget)}. Plan "
            "the step again, or raise the budget.",
            least=evidence.device_bytes,
        )

    def untouched_if_smaller(self, plan: Plan, evidence: Evidence) -> Plan:
        """The plan: it was asked for."""
        return plan
