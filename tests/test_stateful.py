"""Whether the state of a step moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from autotm_jax.compile import Evidence
from autotm_jax.errors import InfeasibleBudget
from autotm_jax.plan import Plan
from autotm_jax.solve import Status
from autotm_jax.stateful import StatefulPlanner


CARRIED = {0: 1, 2: 3}
OVER = Evidence(200, 0, None, ())


def plan_of(seconds: float) -> Plan:
    return Plan(100, Status.OPTIMAL, seconds=seconds, unconstrained_seconds=1.0)


UNTOUCHED = Plan(100, Status.UNTOUCHED)
NONE = InfeasibleBudget("No plan keeps it.", least=200)


class Planning:
    """A planner with one answer for all questions, and how often it was asked."""

    is_shared = False

    def __init__(self, answer: Plan | InfeasibleBudget, budget: int | str):
        self.answer, self.asked = answer, 0
        self.request = type("Request", (), {"budget": budget})

    def first(self) -> Plan:
        self.asked += 1
        if isinstance(self.answer, InfeasibleBudget):
            raise self.answer
        return self.answer

    def tighter(self, plan: Plan, evidence: Evidence) -> Plan:
        return self.first()

    def untouched_if_smaller(self, plan: Plan, evidence: Evidence) -> Plan:
        return self.first()


def planners(
    staying: Plan | InfeasibleBudget,
    moving: Plan | InfeasibleBudget,
    budget: int | str = 100,
) -> tuple[StatefulPlanner, Planning, Planning]:
    both = Planning(staying, budget), Planning(moving, budget)

    def make(moves: Mapping[int, int]) -> Any:
        assert moves in ({}, CARRIED)
        return both[bool(moves)]

    return StatefulPlanner(make, CARRIED), *both


@pytest.mark.parametrize("first", [UNTOUCHED, plan_of(1.4)])
def test_state_stays_where_that_is_fast_enough(first: Plan):
    planner, _, moving = planners(first, plan_of(1.0))
    assert planner.first() is first
    assert moving.asked == 0


def test_state_moves_where_nothing_fits_otherwise():
    there = plan_of(9.0)
    planner, staying, moving = planners(NONE, there)
    assert planner.first() is there
    assert planner.tighter(there, OVER) is there
    assert planner.untouched_if_smaller(there, OVER) is there
    assert (staying.asked, moving.asked) == (1, 3)


@pytest.mark.parametrize(("seconds", "pays"), [(1.5, True), (1.99, False)])
def test_state_moves_where_the_step_is_much_faster_for_it(seconds: float, pays: bool):
    here, there = plan_of(2.0), plan_of(seconds)
    planner, _, _ = planners(here, there)
    assert planner.first() is (there if pays else here)
    assert planner.tighter(there, OVER) is (there if pays else here)


def test_a_slow_plan_stands_where_the_state_is_of_no_use():
    here = plan_of(2.0)
    planner, _, _ = planners(here, NONE)
    assert planner.first() is here


def test_state_moves_where_what_fits_turns_out_not_to():
    here, there = plan_of(1.0), plan_of(2.0)
    planner, staying, _ = planners(here, there)
    assert planner.first() is here
    staying.answer = NONE
    assert planner.tighter(here, OVER) is there
    assert planner.untouched_if_smaller(there, OVER) is there


def test_the_least_is_that_with_a_state_that_may_move():
    there = plan_of(2.0)
    planner, staying, _ = planners(plan_of(1.0), there, budget="min")
    assert planner.first() is there
    assert staying.asked == 0


def test_what_is_raised_last_is_what_the_user_sees():
    least = InfeasibleBudget("Nor with its state on the host.", least=150)
    planner, _, _ = planners(NONE, least)
    with pytest.raises(InfeasibleBudget, match="Nor with its state") as caught:
        planner.first()
    assert caught.value.least == 150


def test_a_step_without_state_has_one_planner():
    one = Planning(NONE, 100)
    planner = StatefulPlanner(lambda _: one, {})  # pyright: ignore[reportArgumentType]
    for ask in (planner.first, lambda: planner.tighter(plan_of(1.0), OVER)):
        with pytest.raises(InfeasibleBudget, match="No plan keeps it"):
            ask()
    assert one.asked == 2
