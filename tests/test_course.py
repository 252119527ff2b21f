"""The course of a step, against the replay that it is made of."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autotm_jax as autotm
from autotm_jax import Plan
from autotm_jax.report.course import Course, Phase, Role, course_of
from autotm_jax.simulate import Lane, simulate
from autotm_jax.solve import Fetch, Schedule, Way, replay
from autotm_jax.trace import short_source
from benchmarks.workloads import gpt

from .steps import chain_arguments, chain_step


@functools.cache
def plan_of(budget: float | str, scanned: bool = False) -> Plan:
    config = dataclasses.replace(gpt.TINY, scanned=scanned)
    workload = gpt.workload(config, "gpt")
    target = autotm.target("h100-sxm")
    step = autotm.jit(workload.step, budget=budget, target=target, donate_argnums=0)
    return step.plan(*workload.args)


PLANS = [(0.6, False), ("min", False), ("min", True)]


@pytest.fixture(params=PLANS, ids=str)
def plan(request: pytest.FixtureRequest) -> Plan:
    return plan_of(*request.param)


def test_it_takes_as_long_as_the_plan_simulated(plan: Plan):
    course = course_of(plan)
    assert plan.problem is not None
    assert course.modelled == pytest.approx(plan.seconds)
    assert course.seconds == simulate(plan.problem, plan.schedule).seconds
    assert all(a <= b for a, b in itertools.pairwise(course.begins))
    assert len(course.begins) == len(course.segments) + 1
    compute = [s for s in course.spans if s.lane is Lane.COMPUTE]
    assert len(compute) == len(course.segments)
    for k, span in enumerate(compute):
        assert course.begins[k] <= span.begin <= span.end <= course.begins[k + 1]


def test_its_memory_is_that_of_the_replay(plan: Plan):
    assert plan.problem is not None and plan.replay is not None
    course = course_of(plan)
    other = np.array(course.device) - plan.replay.device
    assert set(other.tolist()) == {course.always}
    assert course.host == tuple(plan.replay.host)
    assert course.device[course.peak] == max(course.device)
    plain = course_of(plan, Schedule())
    assert plain.modelled == pytest.approx(replay(plan.problem, Schedule()).makespan)
    assert max(plain.device) > max(course.device) and not any(plain.host)
    assert all(held.way is Way.STAYS for held in plain.held)


def test_every_copy_has_a_span(plan: Plan):
    course = course_of(plan)
    for lane, copies in (
        (Lane.D2H, plan.schedule.stores),
        (Lane.H2D, plan.schedule.fetches),
    ):
        spans = [s for s in course.spans if s.lane is lane]
        # In loops, those for the first iterations are on their own.
        ahead = sum(isinstance(c, Fetch) and c.is_ahead for c in copies)
        assert 0 < len(copies) <= len(spans) <= len(copies) + ahead
        latest = course.seconds * (1 + 1e-9)
        assert all(0 <= s.begin <= s.end <= latest for s in spans)
        assert all(s.nbytes > 0 for s in spans)


def test_what_is_alive_explains_the_memory(plan: Plan):
    assert plan.replay is not None and plan.program is not None
    course = course_of(plan)
    for k in (0, course.peak, len(course.segments) - 1):
        alive = course.alive(k)
        values = {held.value for held in alive}
        inside = set(plan.replay.alive(k)) | set(plan.replay.stacked(k))
        assert inside <= values
        # What a result takes an operand's place of counts once.
        twice = max(0, -plan.replay.workspace[k])
        assert sum(h.nbytes for h in alive) - twice <= course.device[k] * 1.01
        assert alive == sorted(alive, key=lambda h: (-h.nbytes, h.value))
    arguments = {h.value for h in course.held if h.role is Role.ARGUMENT}
    assert arguments == set(plan.program.arguments)
    ways = {h.value: h.way for h in course.held}
    for value in plan.schedule.moved:
        assert ways[value] in (Way.MOVES, Way.BOTH)
    for item in plan.schedule.recomputes:
        assert ways[item.value] in (Way.AGAIN, Way.BOTH)


def test_memory_is_values_workspace_and_what_is_too_small_to_plan(plan: Plan):
    assert plan.problem is not None and plan.replay is not None
    for schedule in (plan.schedule, Schedule()):
        course = course_of(plan, schedule)
        state = replay(plan.problem, schedule)
        small = plan.problem.resident
        for k, nbytes in enumerate(course.device):
            named = sum(held.nbytes for held in course.alive(k))
            if state.running[k] == state.device[k]:
                # It is less than nothing where a result takes an operand's place.
                assert course.workspace[k] == max(0, state.workspace[k])
                assert nbytes == named + state.workspace[k] + small[k]
            else:
                assert nbytes <= named + course.workspace[k] + small[k]


@pytest.mark.parametrize("budget", [0.6, "min"])
def test_what_takes_memory_at_the_peak_has_a_source_line(budget: float | str):
    config = gpt.Config(layers=2, width=256, heads=4, vocabulary=2048, batch=4)
    workload = gpt.workload(config, "gpt")
    options = {"target": "h100-sxm", "donate_argnums": 0}
    step = autotm.jit(workload.step, budget=budget, **options)
    course = course_of(step.plan(*workload.args))
    named = sum(h.nbytes for h in course.alive(course.peak) if has_line(h.source))
    if has_line(course.segments[course.peak]):
        named += course.workspace[course.peak]
    assert named >= 0.95 * course.device[course.peak]


def has_line(text: str) -> bool:
    """Whether a text names the user's line, or the argument of the user's function."""
    return re.search(r"\w\.py:\d+|argument \w+", text) is not None


def test_results_are_there_beside_the_arguments_they_do_not_replace():
    args = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), chain_arguments()
    )
    plan = autotm.jit(chain_step, budget="min", target="h100-sxm").plan(*args)
    assert plan.program is not None
    course = course_of(plan)
    results = [held for held in course.held if held.role is Role.RESULT]
    assert sorted(held.value for held in results) == sorted(plan.program.results)
    assert {held.spans for held in results} == {((0, len(course.segments)),)}
    assert sum(held.nbytes for held in results) == plan.program.result_bytes()[0]


def test_arguments_have_names():
    course = course_of(plan_of(0.6))
    assert any(h.source == "argument state[0]['tokens']" for h in course.held)


def test_values_are_numbered_by_layers():
    config = gpt.Config(layers=4, width=64, heads=2, vocabulary=128, length=64, batch=4)
    workload = gpt.workload(config, "gpt")
    options = {"target": "h100-sxm", "donate_argnums": 0}
    plan = autotm.jit(workload.step, budget="min", **options).plan(*workload.args)
    found = {held.layer for held in course_of(plan).held}
    assert found == {None, 0, 1, 2, 3}


def test_the_parts_of_a_training_step(plan: Plan):
    course = course_of(plan)
    names = [phase for phase, _, _ in course.phases]
    assert names[:2] == [Phase.FORWARD, Phase.BACKWARD]
    edges = [first for _, first, _ in course.phases] + [len(course.segments)]
    assert edges == sorted(edges) and edges[0] == 0
    assert [end for _, _, end in course.phases] == edges[1:]


def test_a_step_without_a_gradient_has_no_parts():
    step = autotm.jit(chain_step, budget="min", target="h100-sxm")
    args = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), chain_arguments()
    )
    plan = step.plan(*args)
    course: Course = course_of(plan)
    assert all("transpose" not in name for name in course.segments)
    assert [phase for phase, _, _ in course.phases] in ([], [*Phase][:2])


def test_a_step_that_is_left_as_it_is():
    workload = gpt.workload(gpt.TINY, "gpt")
    plan = autotm.jit(workload.step, budget="1GiB", donate_argnums=0).plan(
        *workload.args
    )
    assert plan.is_untouched and plan.program is None
    course = course_of(plan)
    assert not any(course.host) and course.phases
    assert all(s.lane is Lane.COMPUTE for s in course.spans)
    text = plan.explain()
    assert "Plain jax.jit takes" in text and "The tightest point is segment" in text
    assert plan.plot().axes


def test_what_cannot_be_analysed():
    with pytest.warns(autotm.AutoTMWarning, match="it returns no arrays"):
        plan = autotm.jit(lambda x: None, budget="min").plan(jnp.ones(3))
    with pytest.raises(autotm.ReportError) as caught:
        course_of(plan)
    assert str(caught.value) == "There is nothing to draw: it returns no arrays."
    plan = dataclasses.replace(plan, note="")
    with pytest.raises(autotm.ReportError, match="^There is nothing to draw: the step"):
        course_of(plan)


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("/home/me/model.py:12:3 (layer)", "model.py:12 (layer)"),
        ("model.py:12 (f.<locals>.g)", "model.py:12 (f.<locals>.g)"),
        ("argument state[0]['w']", "argument state[0]['w']"),
        ("argument state['linear/w']", "argument state['linear/w']"),
        ("/a (b)/model.py:1:2 (<lambda>)", "model.py:1 (<lambda>)"),
        ("the transformed step", "the transformed step"),
    ],
)
def test_short_sources(source: str, short: str):
    assert short_source(source) == short
