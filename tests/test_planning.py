"""What a planner does when XLA needs more than was planned."""

import dataclasses
import re
from typing import Any

import jax
import pytest

from autotm_jax import InfeasibleBudget, SolverOptions, Status
from autotm_jax.budget import format_bytes
from autotm_jax.candidate import Candidate
from autotm_jax.compile import Evidence
from autotm_jax.found import Found
from autotm_jax.machine import PINNED_CAP, Target, describe
from autotm_jax.plain import Plain
from autotm_jax.planning import Planner
from autotm_jax.request import UNLIMITED, Request

from .steps import chain_arguments, chain_step


HERE = Target(describe("cpu"))
PLAIN = 2**30


def planner(budget: int, plain: int = PLAIN, **more: Any) -> Planner:
    """One for a chain of layers, whose untouched step is said to take `plain` bytes."""
    args = chain_arguments(batch=256)
    traced = jax.jit(chain_step).trace(*args)
    donated = [False] * len(jax.tree.leaves(args))
    request = Request(HERE, budget, None, False, SolverOptions())
    request = dataclasses.replace(request, **more)
    return Planner(traced.jaxpr, donated, request, Plain(lambda _: plain, HERE, budget))


def least_bytes() -> int:
    """The least of any order that is tried."""
    return min(c.least_bytes for c in planner(2**20).orders)


def test_the_least_budget_is_that_of_the_least_plan(own_cache: object):
    least = least_bytes()
    with pytest.raises(InfeasibleBudget) as caught:
        planner(least - 4096).first()
    assert caught.value.least == pytest.approx(least, rel=0.006)
    assert caught.value.least >= least
    assert "beyond its plan" not in str(caught.value)


@pytest.mark.parametrize("room", [1.02, 1.3])
@pytest.mark.parametrize("over", [0.5, 2.0])
def test_the_least_budget_is_more_than_the_one_that_xla_broke(
    own_cache: object, room: float, over: float
):
    least = least_bytes()
    budget = int(room * least)
    one = planner(budget)
    plan = one.first()
    assert plan.device_bytes is not None and plan.device_bytes <= budget
    needed = budget + int(over * least)
    assert plan.replay is not None
    beyond = needed - one.orders.usual.fixed_bytes - plan.replay.device_peak
    with pytest.raises(InfeasibleBudget) as caught:
        one.tighter(plan, Evidence(needed, 0, None, ()))
    named = caught.value.least
    assert named is not None and named > budget
    assert named == pytest.approx(least + beyond, rel=0.01)
    said = re.search(r"\((\d+) bytes\), with (.*) that XLA needs", str(caught.value))
    assert said is not None and int(said[1]) == named
    assert said[2] == format_bytes(beyond + int(0.005 * budget) // 2)
    assert f"within {format_bytes(budget)} of" in str(caught.value)


def test_no_more_is_named_than_the_untouched_step_needs(own_cache: object):
    least = least_bytes()
    budget = int(1.02 * least)
    one = planner(budget, plain=budget + 10)
    plan = one._within(budget, budget - one.orders.usual.fixed_bytes, 0)
    with pytest.raises(InfeasibleBudget) as caught:
        one.tighter(plan, Evidence(2 * budget, 0, None, ()))
    assert caught.value.least == budget + 10


@pytest.mark.parametrize("may_beat", [False, True])
def test_another_order_is_searched_if_it_may_be_faster(
    own_cache: object, monkeypatch: pytest.MonkeyPatch, may_beat: bool
):
    searched: list[Candidate] = []
    within = Candidate.within

    def spied(self: Candidate, *rest: Any) -> Found | None:
        searched.append(self)
        return within(self, *rest)

    monkeypatch.setattr(Candidate, "may_beat", lambda *_: may_beat)
    monkeypatch.setattr(Candidate, "within", spied)
    one = planner(int(1.2 * least_bytes()))
    plan = one.first()
    assert plan.seconds is not None
    assert plan.seconds > 1.05 * one.orders.usual.unconstrained
    usual, other = one.orders
    assert searched == ([usual, other] if may_beat else [usual])


def test_a_tighter_plan_takes_less_by_what_was_missing(own_cache: object):
    budget = int(2.5 * least_bytes())
    one = planner(budget)
    plan = one.first()
    tighter = one.tighter(plan, Evidence(budget + 8192, 0, None, ()))
    assert tighter.status in (Status.OPTIMAL, Status.REPACKED)
    assert tighter.replay is not None and plan.replay is not None
    assert tighter.device_bytes is not None and plan.device_bytes is not None
    assert tighter.device_bytes <= plan.device_bytes - 8192


def test_a_plan_that_is_nearly_as_fast_and_fits_needs_no_other_search(
    own_cache: object, monkeypatch: pytest.MonkeyPatch
):
    budget = int(2.5 * least_bytes())
    one = planner(budget)
    plan = one.first()
    assert one._last is not None and plan.device_bytes is not None
    evidence = Evidence(budget + 1, 0, None, ())
    found, _ = one._last
    near = dataclasses.replace(found, objective=1.05 * found.objective)
    monkeypatch.setattr("autotm_jax.candidate.Candidate.nearby", lambda *_: near)
    monkeypatch.setattr(one, "_within", unpriced)
    assert one.tighter(plan, evidence).schedule == found.schedule
    slow = dataclasses.replace(found, objective=2 * found.objective)
    monkeypatch.setattr("autotm_jax.candidate.Candidate.nearby", lambda *_: slow)
    with pytest.raises(AssertionError, match="priced"):
        one.tighter(plan, evidence)


def unpriced(*args: object) -> object:
    """Stands for what prices a program, where that is not to happen."""
    raise AssertionError("priced")


@pytest.mark.parametrize(("plain", "is_kept"), [(0.9, True), (1.1, False)])
def test_a_budget_that_looks_loose_is_tried_out_before_anything_is_priced(
    own_cache: object, monkeypatch: pytest.MonkeyPatch, plain: float, is_kept: bool
):
    monkeypatch.setattr("autotm_jax.priced.estimate_costs", unpriced)
    budget = planner(2**20).orders.usual.live_bytes
    one = planner(budget, plain=int(plain * budget))
    if is_kept:
        assert one.first().status is Status.UNTOUCHED
        return
    with pytest.raises(AssertionError, match="priced"):
        one.first()


def test_arguments_that_do_not_fit_are_refused_before_anything_is_priced(
    own_cache: object, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("autotm_jax.priced.estimate_costs", unpriced)
    with pytest.raises(InfeasibleBudget, match="the arguments and results of the step"):
        planner(64).first()


@pytest.mark.parametrize(
    ("budget", "limit", "is_said"),
    [(None, 2**36, False), (2**40, 2**36, True), (2**20, 2**20, False)],
)
def test_no_more_host_memory_is_planned_than_there_is(
    budget: int | None, limit: int, is_said: bool
):
    machine = describe("gh200")
    gpu = Target(dataclasses.replace(machine, host_bytes=2**36))
    one = planner(2**20, target=gpu, host_budget=budget)
    assert one.host_limit == limit
    text = f"there is 64.00 GiB of pinned host memory (see {PINNED_CAP})"
    assert one._note() == (text if is_said else "")
    # What more of it would do can be asked.
    assert planner(2**20, target=gpu, host_budget=UNLIMITED).host_limit == UNLIMITED
