"""Whether the state of a step moves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from autotm_jax.compile import Evidence
from autotm_jax.errors import InfeasibleBudget
from autotm_jax.plan import Plan
from autotm_jax.request import UNLIMITED
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

    is_shared, live_bytes, host_limit, least_bytes = False, 1000, 2000, 100
    carried: Mapping[int, int] = {}

    def __init__(self, answer: Plan | InfeasibleBudget, budget: int | str = 100):
        self.answer, self.asked, self.state = answer, 0, 0
        self.request = type("Request", (), {"budget": budget})

    def argument_bytes(self, numbers: Iterable[int]) -> int:
        assert numbers == CARRIED
        return self.state

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

    def make(moves: Mapping[int, int], host: int | None) -> Any:
        assert moves in ({}, CARRIED) and host is None
        planning = both[bool(moves)]
        planning.carried = moves
        return planning

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


@pytest.mark.parametrize(("state", "moves"), [(24, False), (25, True)])
def test_the_least_is_that_with_a_state_that_moves_if_there_is_much_of_it(
    state: int, moves: bool
):
    here, there = plan_of(3.0), plan_of(2.0)
    planner, staying, _ = planners(here, there, budget="min")
    staying.state = state
    assert planner.first() is (there if moves else here)
    assert staying.asked == (not moves)


def test_what_is_raised_last_is_what_the_user_sees():
    least = InfeasibleBudget("Nor with its state on the host.", least=150)
    planner, _, _ = planners(NONE, least)
    with pytest.raises(InfeasibleBudget, match="Nor with its state") as caught:
        planner.first()
    assert caught.value.least == 150


def test_a_step_without_state_has_one_planner():
    one = Planning(NONE)

    def make(moves: Mapping[int, int], host: int | None) -> Any:
        assert not moves and host is None
        return one

    planner = StatefulPlanner(make, {})
    for ask in (planner.first, lambda: planner.tighter(plan_of(1.0), OVER)):
        with pytest.raises(InfeasibleBudget, match="^No plan keeps it.$"):
            ask()
    assert one.asked == 2


@pytest.mark.parametrize("carried", [{}, CARRIED])
def test_a_host_that_is_too_small_is_named(carried: Mapping[int, int]):
    asked: list[int | None] = []

    def make(moves: Mapping[int, int], host: int | None) -> Any:
        asked.append(host)
        more = dataclasses.replace(plan_of(9.0), host_bytes=3 * 2**20)
        planning = Planning(NONE if host is None else more)
        planning.carried, planning.host_limit = moves, 10
        return planning

    planner = StatefulPlanner(make, carried)
    text = (
        "No plan keeps it.\nMore host memory would do, too: there is a plan that "
        "takes 3.0 MiB of it, and it may take 10 B. That is the least of host_budget, "
        "of what the machine has, and of what JAX lends, which "
        "XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB sets."
    )
    with pytest.raises(InfeasibleBudget, match=f"^{re.escape(text)}$") as caught:
        planner.first()
    assert caught.value.least == 200
    assert asked[-1] == UNLIMITED


def test_a_host_is_not_too_small_if_more_of_it_is_of_no_use():
    def make(moves: Mapping[int, int], host: int | None) -> Any:
        planning = Planning(NONE)
        planning.carried, planning.host_limit = moves, 10
        return planning

    with pytest.raises(InfeasibleBudget, match="^No plan keeps it.$"):
        StatefulPlanner(make, CARRIED).first()


STAYS = (
    "the state stays on the device, as in_shardings or out_shardings say in which "
    "memory or in which layout arrays are; with shardings alone it may move"
)


@pytest.mark.parametrize("carried", [{}, CARRIED])
@pytest.mark.parametrize("answer", [plan_of(9.0), UNTOUCHED, NONE])
def test_state_that_has_been_given_a_place_stays_and_that_is_said(
    carried: Mapping[int, int], answer: Plan | InfeasibleBudget
):
    def make(moves: Mapping[int, int], host: int | None) -> Any:
        assert not moves and host is None
        return Planning(answer)

    planner = StatefulPlanner(make, carried, is_told=True)
    assert planner.carried == {}
    if isinstance(answer, InfeasibleBudget):
        said = f"\nNote that {STAYS}." if carried else ""
        with pytest.raises(InfeasibleBudget, match=f"^No plan keeps it.{said}$"):
            planner.first()
        return
    is_planned = carried and not answer.is_untouched
    for plan in (planner.first(), planner.tighter(answer, OVER)):
        assert plan.note == (STAYS if is_planned else "")


def test_state_moves_before_rounds_of_tightening_run_out():
    here, there = plan_of(1.0), plan_of(2.0)
    planner, _, moving = planners(here, there)
    found = [planner.first(), *(planner.tighter(here, OVER) for _ in range(3))]
    assert found == [here, here, here, there]
    assert moving.asked == 1


def test_state_cannot_move_to_a_host_that_may_not_be_used():
    planner, staying, moving = planners(NONE, plan_of(1.0))
    staying.host_limit = 0
    staying.live_bytes = 0
    with pytest.raises(InfeasibleBudget, match="No plan keeps it"):
        planner.first()
    assert moving.asked == 0


class Failing(Planning):
    """A planner that fails as it should not."""

    def first(self) -> Plan:
        raise RuntimeError("the solver has crashed")


def test_what_is_tried_beside_a_plan_breaks_nothing():
    here = plan_of(9.0)

    def make(moves: Mapping[int, int], host: int | None) -> Any:
        return Failing(NONE) if moves else Planning(here)

    plan = StatefulPlanner(make, CARRIED).first()
    note = (
        "the state stays on the device, as planning its moves failed: RuntimeError: "
        "the solver has crashed"
    )
    assert plan == dataclasses.replace(here, note=note)

    def making(moves: Mapping[int, int], host: int | None) -> Any:
        planning = Planning(NONE) if host is None else Failing(NONE)
        planning.host_limit = 10
        return planning

    with pytest.raises(InfeasibleBudget, match="^No plan keeps it.$"):
        StatefulPlanner(making, {}).first()
