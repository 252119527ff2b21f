"""What becomes of a plan once it is compiled, word for word."""

from __future__ import annotations

from typing import Any

import pytest

import autotm_jax as autotm
from autotm_jax import Plan, Status
from autotm_jax.compile import Evidence
from autotm_jax.verdict import MOST_ROUNDS, judge


PLAN = Plan(2**30, Status.OPTIMAL, device_bytes=2**29)
FITS, OVER = Evidence(2**29, 0, 2, ()), Evidence(2**31, 0, 2, ())


class Tightening:
    """A planner that has one other plan."""

    other = Plan(2**30, Status.OPTIMAL, device_bytes=1)

    def tighter(self, plan: Plan, evidence: Evidence) -> Plan:
        assert plan is PLAN and evidence is OVER
        return self.other


def judged(evidence: Evidence, number: int = 1, platform: str = "cuda") -> Any:
    planner: Any = Tightening()
    return judge(planner, PLAN, evidence, number, platform)


def test_a_plan_that_keeps_its_budget_stands():
    assert judged(FITS) is None
    assert judge(None, PLAN, OVER, 1, "cuda") is None  # nothing can make another


def test_one_that_does_not_is_followed_by_a_tighter_one():
    assert judged(OVER) is Tightening.other


def test_in_the_end_the_budget_is_given_up():
    with pytest.raises(autotm.InfeasibleBudget) as caught:
        judged(OVER, MOST_ROUNDS)
    assert str(caught.value) == (
        "XLA needs 2.00 GiB for a plan of 512.0 MiB, after 4 rounds of tightening: "
        "1.00 GiB over the budget. Raise the budget by that much."
    )
    assert caught.value.least == 2**31


def test_a_plan_that_was_not_realised():
    with pytest.raises(autotm.PlanNotRealised) as caught:
        judged(Evidence(2**29, 0, 1, ("1 of 2 copies are missing", "it waits")))
    assert str(caught.value) == (
        "XLA did not realise the plan: 1 of 2 copies are missing; it waits. Nothing "
        "was run. A larger budget, or host_budget=0 to move nothing, may avoid it; "
        "please report the step that shows it."
    )


def test_on_a_cpu_the_user_is_told():
    with pytest.warns(autotm.AutoTMWarning) as caught:
        assert judged(OVER, platform="cpu") is None
    assert str(caught[0].message) == (
        "On a cpu, host memory is device memory: with what was moved, the step takes "
        "2.00 GiB there for a budget of 1.00 GiB. Its results are right. host_budget=0 "
        "moves nothing; to check the budget of a GPU, compile for one: "
        'autotm.jit(..., target="h100-sxm").lower(...).compile().'
    )
    assert caught[0].filename == __file__


class Trying:
    """A planner for `"min"` with another plan, and one that changes nothing."""

    other = Plan(None, Status.REPACKED, device_bytes=2**29)
    untouched = Plan(None, Status.UNTOUCHED)

    def __init__(self):
        self.asked: list[int] = []

    def another(self, plan: Plan, evidence: Evidence, number: int) -> Plan | None:
        self.asked.append(number)
        return self.other if number == 1 else None

    def untouched_if_smaller(self, plan: Plan, evidence: Evidence) -> Plan:
        return self.untouched


def test_for_the_least_another_plan_is_tried_first():
    least, planner = Plan(None, Status.OPTIMAL, device_bytes=2**29), Trying()
    asked: Any = planner
    assert judge(asked, least, OVER, 1, "cuda") is Trying.other
    assert judge(asked, least, OVER, 2, "cuda") is Trying.untouched
    assert judge(asked, least, OVER, MOST_ROUNDS, "cuda") is Trying.untouched
    assert planner.asked == [1, 2, 0]
