"""What becomes of a plan once XLA has compiled it."""

from __future__ import annotations

from .budget import format_bytes
from .compile import Evidence
from .errors import InfeasibleBudget, PlanNotRealised, warn
from .plan import Plan
from .stateful import StatefulPlanner


# How many plans are compiled before a budget is given up.
MOST_ROUNDS = 4


def judge(
    planner: StatefulPlanner | None,
    plan: Plan,
    evidence: Evidence,
    number: int,
    platform: str,
) -> Plan | None:
    """Whether a compiled plan stands.

    **Arguments:**

    - `planner`: what made the plan and can make a tighter one; `None` if nothing can.
    - `plan`: the plan.
    - `evidence`: what the executable shows.
    - `number`: which plan of this step it is, from 1.
    - `platform`: JAX's name of the backend it was compiled for.

    **Returns:**

    `None` if the plan stands, else the one to compile next.

    **Raises:**

    - `PlanNotRealised`: if XLA did something else than was planned.
    - `InfeasibleBudget`: if no plan was found that keeps the budget.
    """
    if planner is None or plan.is_untouched:
        return None
    if evidence.faults:
        raise PlanNotRealised(
            "XLA did not realise the plan: " + "; ".join(evidence.faults) + ". "
            "Nothing was run. A larger budget, or host_budget=0 to move nothing, "
            "may avoid it; please report the step that shows it."
        )
    if plan.budget is None:
        is_last = number >= MOST_ROUNDS
        other = planner.another(plan, evidence, 0 if is_last else number)
        if other is not None:
            return other
        better = planner.untouched_if_smaller(plan, evidence)
        return None if better is plan else better
    over = evidence.device_bytes - plan.budget
    if over <= 0:
        return None
    if platform != "cuda":
        _warn_unbounded(platform, evidence.device_bytes, plan.budget)
        return None
    if number == MOST_ROUNDS:
        raise InfeasibleBudget(
            f"XLA needs {format_bytes(evidence.device_bytes)} for a plan of "
            f"{format_bytes(plan.device_bytes or 0)}, after {number} rounds of "
            f"tightening: {format_bytes(over)} over the budget. "
            "Raise the budget by that much.",
            least=evidence.device_bytes,
        )
    return planner.tighter(plan, evidence)


def _warn_unbounded(platform: str, needed: int, budget: int) -> None:
    warn(
        f"On a {platform}, host memory is device memory: with what was moved, the step "
        f"takes {format_bytes(needed)} there for a budget of {format_bytes(budget)}. "
        "Its results are right. host_budget=0 moves nothing; to check the budget of a "
        "GPU, compile for one: "
        'autotm.jit(..., target="h100-sxm").lower(...).compile().'
    )
