import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import SolverOptions, Status
from autotm_jax.candidate import Candidate
from autotm_jax.machine import Target, describe
from autotm_jax.simulate import simulate
from autotm_jax.solve import (
    PROGRAMS,
    Deadline,
    Formulation,
    Pick,
    Schedule,
    Solution,
    offload_everything,
    packed_bytes,
    replay,
)
from autotm_jax.trace import build_program

from .problems import hard_problem
from .programs import program_of
from .steps import chain_arguments, chain_step


HERE = Target(describe("cpu"))
X, W = jnp.ones((4096, 64)), jnp.ones((64, 4096))


def by_rows(x: Any, w: Any) -> Any:
    """Slow, and with little workspace."""
    return jax.lax.map(lambda row: jax.nn.logsumexp(row @ w), x)


def at_once(x: Any, w: Any) -> Any:
    """Fast, and with 64 MiB of products."""
    return jax.nn.logsumexp(x @ w, -1)


@functools.cache
def candidate(slow_first: bool) -> Candidate:
    """A step of one call, in which nothing can be moved."""
    functions = (by_rows, at_once) if slow_first else (at_once, by_rows)
    program = program_of(autotm.variants(*functions), X, W)
    return Candidate(program, HERE, 0, SolverOptions())


def test_without_a_limit_the_fastest_variant_runs():
    found = candidate(slow_first=True).within(2**40)
    assert found is not None
    assert found.schedule == Schedule(picks=(Pick(0, 1),))
    assert found.status is Status.OPTIMAL
    assert found.objective < sum(candidate(slow_first=True).problem.compute)
    usual = candidate(slow_first=False).within(2**40)
    assert usual is not None
    assert usual.schedule == Schedule()
    assert usual.objective == found.objective


def test_what_fits_when_nothing_can_move():
    for slow_first in (False, True):
        one = candidate(slow_first)
        assert not one.problem.tensors
        found = one.within(8 * 2**20)
        assert found is not None
        variant = 0 if slow_first else 1
        assert found.schedule.picks == ((Pick(0, 1),) if variant else ())
        assert replay(one.problem, found.schedule).device_peak <= 8 * 2**20
        assert one.within(2**10) is None


def test_a_plan_is_measured_against_the_fastest_variants():
    one = candidate(slow_first=True)
    fast, slow = one.within(2**40), one.within(8 * 2**20)
    assert fast is not None and slow is not None
    assert slow.schedule == Schedule()
    plan = one.plan(slow, 8 * 2**20, 8 * 2**20, "")
    assert plan.unconstrained_seconds == fast.objective
    assert plan.seconds == slow.objective > fast.objective


def test_the_least_plan_picks_the_least_workspace():
    one = candidate(slow_first=False)
    assert one.least.schedule == Schedule(picks=(Pick(0, 1),))
    assert one.least.objective < 0.1 * replay(one.problem, Schedule()).device_peak
    assert candidate(slow_first=True).least.schedule == Schedule()


def test_no_plan_beats_its_bound(own_cache: Any):
    program = program_of(chain_step, *chain_arguments(batch=256))
    one = Candidate(program, HERE, 2**40, SolverOptions(gap=0.0))
    least = int(one.least.objective)
    room = replay(one.problem, Schedule()).device_peak - least
    for part in (0.05, 0.3, 0.6):
        limit = least + int(part * room)
        found = one.fastest(limit, SolverOptions(gap=0.0), Deadline(30.0))
        assert found is not None and found.status is Status.OPTIMAL
        assert not one.may_beat(found.bound * 0.9, limit)
        assert one.may_beat(found.objective * 2, limit)
        # As it was stored, too.
        assert one.may_beat(found.objective * 2, limit)
        assert not one.may_beat(one.unconstrained, limit)
    assert not one.may_beat(1e9, 1)


def test_a_plan_is_found_in_the_time_that_is_given(own_cache: Any):
    one = Candidate(program_of(by_rows, X, W), HERE, 2**62, SolverOptions(1.0, 0.0))
    # What is computed again, its program would have to know.
    free = one.__dict__["problem"] = hard_problem(120).moved_only
    assert one.within(int(0.9 * free.floor())) is None
    assert one.least.seconds <= 1.1 * 1.0 + 0.5  # and the program is built
    most = replay(free, Schedule()).device_peak
    for part in (0.7, 0.4):
        limit = int(part * most)
        start = time.perf_counter()
        found = one.within(limit, slack=limit // 100)
        assert time.perf_counter() - start <= 1.1 * 1.0 + 0.5
        assert found is not None


def test_what_took_all_of_its_time_is_not_looked_for_again(own_cache: Any):
    free = hard_problem(4)
    slow = replay(free, offload_everything(free))
    limit = packed_bytes(free, slow)
    asked: list[float] = []

    class Placement:
        """Takes some seconds, it says, for a plan that is not proved to be good."""

        def fastest(self, limit: float, options: SolverOptions) -> Solution:
            asked.append(options.time_limit)
            plan, bound = offload_everything(free), free.fastest()
            return Solution(Status.ROUNDED, plan, 1.01 * bound, bound, seconds)

    for seconds, times in ((0.1, 2), (10.0, 1)):  # noqa: B007 - it says so
        for _ in range(2):
            one = Candidate(program_of(by_rows, X, W), HERE, 2**62, SolverOptions(10.0))
            one.__dict__ |= {"problem": free, "_placement": Placement()}
            found = one.within(limit)
            assert found is not None and found.status is Status.ROUNDED
        assert asked == [6.0] * times
        asked.clear()


def test_the_tightest_point_is_that_of_the_variants_that_run():
    # Whichever is written first, the one by rows runs, and makes no products.
    said = {candidate(slow_first).tightest_point() for slow_first in (True, False)}
    assert said == {
        "The largest values alive at the tightest point, segment 0 of 1 "
        "(scan at the transformed step):\n"
        "and 16.5 KiB of workspace, for what is made and used up in the segment, at "
        "one time or another:\n"
        "   1 x     16.0 KiB  f32[4096] from the transformed step"
    }


@pytest.mark.parametrize("formulation", Formulation)
def test_a_program_is_offered_what_it_can_decide(formulation: Formulation):
    program, kind = program_of(chain_step, *chain_arguments()), PROGRAMS[formulation]
    is_joint = formulation is Formulation.JOINT
    assert (kind.streams, kind.recomputes) == (not is_joint, is_joint)
    one = Candidate(program, HERE, 2**62, SolverOptions(), formulation=formulation)
    assert bool(one.problem.configurations) == kind.streams
    recipes = [t.recipe for t in one.problem.tensors]
    assert any(recipes) == any(t.optional for t in one.problem.tensors)
    assert any(recipes) == kind.recomputes
    # Only what can do all that a schedule may do takes a plan that others made.
    asked: list[float] = []
    one.__dict__["_placement"] = Nothing(asked)
    state = replay(one.problem, offload_everything(one.problem))
    found = one.within(state.device_peak)
    assert asked == [state.device_peak]
    assert (found is not None) == kind.allows_everything
    if found is not None:
        assert found.status in (Status.POLICY, Status.GREEDY)


@pytest.mark.parametrize("reason", ["", "HiGHS crashed"])
def test_a_greedy_plan_is_warned_of(reason: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autotm_jax.placing.best_policy", lambda *_: None)
    program = program_of(chain_step, *chain_arguments())
    one = Candidate(program, HERE, 2**62, SolverOptions(time_limit=3))
    one.__dict__["_placement"] = Nothing([], reason)
    state = replay(one.problem, offload_everything(one.problem))
    with pytest.warns(autotm.AutoTMWarning) as caught:
        found = one.within(state.device_peak)
    assert found is not None and found.status is Status.GREEDY
    because = f" ({reason})" if reason else ""
    assert str(caught[0].message) == (
        f"The solver returned no sound plan within 3 s{because}, so a greedy plan is "
        "used. A longer time limit may give a faster step: "
        "autotm.jit(..., solver=autotm.SolverOptions(time_limit=60))."
    )


class Nothing:
    """A program that finds nothing in its time."""

    def __init__(self, asked: list[float], reason: str = ""):
        self.asked, self.reason = asked, reason

    def fastest(self, limit: float, options: SolverOptions) -> Solution:
        self.asked.append(limit)
        inf = float("inf")
        return Solution(Status.TIME_LIMIT, None, inf, 0.0, 0.0, self.reason)


def test_no_part_of_a_loop_runs_once():
    def loss(weights: Any, x: Any) -> Any:
        return (jax.lax.scan(layer, x, weights)[0] ** 2).mean()

    def layer(x: Any, w: Any) -> Any:
        return jnp.tanh(x @ w), None

    # XLA would write it out, and delete what is copied in it.
    traced = jax.make_jaxpr(jax.grad(loss))(jnp.ones((8, 32, 32)), jnp.ones((512, 32)))
    program = build_program(traced, [False, False])
    one = Candidate(program, HERE, 2**40, SolverOptions())
    least, most = int(one.least.objective), one.cut_bytes - one.fixed_bytes
    found = {
        count
        for part in range(1, 40)
        for count in one.parts(least + part * (most - least) // 40).values()
    }
    assert found >= {2, 6} and found <= {2, 3, 4, 5, 6}


def test_a_plan_is_played_event_by_event(monkeypatch: pytest.MonkeyPatch):
    program = program_of(chain_step, *chain_arguments())
    made = Candidate(program, HERE, 2**40, SolverOptions())
    found = dataclasses.replace(
        made.least, schedule=offload_everything(made.problem), bound=0.0
    )
    plan = made.plan(found, None, float("inf"), "")
    assert plan.problem is not None and plan.seconds is not None
    played = simulate(plan.problem, plan.schedule)
    assert plan.simulated_seconds == played.seconds > 0
    assert "event by event" not in plan.note

    # Where copies wait for each other so that it shows, it is said.
    late = dataclasses.replace(played.run, makespan=1.25 * plan.seconds)
    queueing = dataclasses.replace(played, run=late)
    monkeypatch.setattr("autotm_jax.candidate.simulate", lambda *_: queueing)
    plan = made.plan(found, None, float("inf"), "")
    assert plan.simulated_seconds == late.makespan
    assert plan.note.endswith(
        "played event by event, it takes 25% longer than modelled"
    )


def test_another_plan_keeps_the_limit_as_well(
    own_cache: Any, monkeypatch: pytest.MonkeyPatch
):
    program = program_of(chain_step, *chain_arguments())
    target = dataclasses.replace(autotm.target(), machine=describe("h100-sxm"))
    moving = Candidate(program, target, 2**40, SolverOptions(5.0))
    limit = moving.allocation(Schedule())
    found, moved = moving.within(limit), offload_everything(moving.problem)
    assert found is not None and found.schedule != moved

    seeds: list[int] = []

    def shake(problem: Any, schedule: Schedule, *rest: Any) -> Schedule | None:
        assert problem.device_limit == limit
        seeds.append(rest[-1])
        return moved if len(seeds) == 3 else None

    monkeypatch.setattr("autotm_jax.fitting.shake", shake)
    other = moving.another(found, limit, 1)
    assert other is not None and other.schedule == moved
    assert other.status is Status.REPACKED and len(set(seeds)) == 3
    assert other.objective == replay(moving.problem, moved).makespan
    assert moving.allocation(moved) <= limit
    # It is kept; and the same one again is none.
    monkeypatch.setattr("autotm_jax.fitting.shake", lambda *_: found.schedule)
    assert moving.another(found, limit, 1) == other
    assert moving.another(found, limit, 2) is None


def test_what_packs_badly_gives_way_to_what_needs_less(monkeypatch: pytest.MonkeyPatch):
    program = program_of(chain_step, *chain_arguments(layers=8, width=64, batch=1024))
    target = Target(dataclasses.replace(describe("h100-sxm"), platform="cpu"))
    one, other = (
        Candidate(program, target, 2**40, SolverOptions(time_limit=4)) for _ in range(2)
    )
    least = one.polished(one.least)
    slowest = replay(one.problem, least.schedule).makespan
    low, high = one.least.objective, one.cut_bytes - one.fixed_bytes
    limit, bad = int((low + high) / 2), low + 0.3 * (high - low)

    def packed(_: Candidate, schedule: Schedule) -> int:
        peak = replay(one.problem, schedule).device_peak
        return int(peak if peak <= bad else 2 * high)

    monkeypatch.setattr(Candidate, "allocation", packed)
    monkeypatch.setattr(Candidate, "_fitting", lambda *_: None)
    found = one.within(limit)
    assert found is not None
    assert found.status is Status.REPACKED
    assert one.allocation(found.schedule) <= limit
    assert found.bound <= found.objective < slowest
    # With nothing in between there is the one that needs least.
    monkeypatch.setattr("autotm_jax.candidate._LOWER_LIMITS", 0)
    found = other.within(limit)
    assert found is not None
    assert found.objective == slowest
    assert "it is the plan that needs least" in found.note
