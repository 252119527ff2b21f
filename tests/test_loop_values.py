"""Loops that are written out give what plain `jax.jit` gives, whatever is planned."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping

import jax
import pytest

import autotm_jax as autotm
from autotm_jax import AutoTMWarning
from autotm_jax.emit import emit
from autotm_jax.solve import (
    Problem,
    Schedule,
    offload_everything,
    recompute_everything,
    replay,
)
from autotm_jax.trace import Program, build_program

from .loop_plans import WAYS, crossing, moving, recomputing
from .loop_steps import STEPS, get, wanted
from .steps import assert_close
from .test_emit import problem_of


CROSSED = (
    "layers",
    "layers_in_half_precision",
    "linear_solve",
    "lstm",
    "convolutions",
    "accumulated_gradients",
    "nested",
    "nested_in_the_reader",
    "checkpointed_blocks",
    "hessian_product",
    "small_types_stacked",
    "made_by_two",
    "handed_on_twice",
    "pulled_back_twice",
    "three_in_a_row",
)
"""Steps in which something goes from one loop to another."""

AGAIN = (
    "layers_unrolled_by_two",
    "layers_in_half_precision",
    "linear_solve",
    "lstm",
    "nested",
    "hessian_product",
    "mapped",
    "pulled_back_twice",
)
"""Steps in which some of that can be computed again."""

CUT = (
    *CROSSED,
    "layers_from_the_last",
    "layers_unrolled_by_two",
    "keys_carried",
    "keys_stacked",
    "mapped",
    "searching_in_layers",
)
"""Steps with a pair of loops that can be cut in two."""


def program_of(name: str, parts: Mapping[int, int] | None = None) -> Program:
    """A step with its loops written out, and cut."""
    step, args = get(name)
    count = len(jax.tree.leaves(args))
    return build_program(jax.jit(step).trace(*args).jaxpr, [False] * count, parts=parts)


@functools.cache
def planned(name: str, count: int = 0) -> tuple[Program, Problem]:
    """A step up to the solver, its pairs of loops cut after some iterations."""
    program = program_of(name, dict.fromkeys(range(9), count))
    return program, problem_of(program)


def assert_same_values(name: str, program: Program, schedule: Schedule) -> None:
    """That an emitted step gives the values of the plain one."""
    _, args = get(name)
    found = jax.jit(emit(program, schedule))(*jax.tree.leaves(args))
    assert_close(found, wanted(name), 2e-5)
    # Weak types decide about what is computed from results.
    for one, other in zip(found, wanted(name), strict=True):
        assert getattr(one, "weak_type", False) == getattr(other, "weak_type", False)


@pytest.mark.parametrize("name", STEPS)
def test_with_nothing_planned(name: str):
    assert_same_values(name, planned(name)[0], Schedule())


@pytest.mark.parametrize("name", CUT)
def test_with_all_pairs_cut(name: str):
    program = planned(name, 1)[0]
    assert len(program.loops) > len(planned(name)[0].loops)
    assert_same_values(name, program, Schedule())


@pytest.mark.parametrize("name", CROSSED)
def test_with_everything_moved_in_every_way(name: str):
    program, problem = planned(name)
    movable = [t for t in crossing(problem) if t.movable]
    schedules = dict.fromkeys(moving(problem, way) for way in WAYS)
    # Where a loop is one segment, there are two ways: at once, and ahead.
    assert len(schedules) >= 2
    for schedule in schedules:
        assert replay(problem, schedule).faults == ()
        assert len(schedule.stores) == len(movable) > 0
        assert_same_values(name, program, schedule)


@pytest.mark.parametrize("name", AGAIN)
def test_with_all_computed_again_that_can_be(name: str):
    program, problem = planned(name)
    schedule = recomputing(problem)
    assert schedule.recomputes
    assert replay(problem, schedule).faults == ()
    assert_same_values(name, program, schedule)


WHILES = ("sampling", "sampling_nothing", "whiles_in_a_while")
"""Steps in which something is made, and read later, in one iteration of a `while`."""


@pytest.mark.parametrize("name", WHILES)
def test_in_an_iteration_of_a_while(name: str):
    program, problem = planned(name)
    inside = {
        v.index
        for v in program.values
        if v.loop is not None and program.loops[v.loop].condition is not None
    }
    moved = offload_everything(problem)
    again = recompute_everything(problem)
    assert inside.intersection(s.value for s in moved.stores)
    assert inside.intersection(r.value for r in again.recomputes)
    for schedule in (moved, again):
        assert replay(problem, schedule).faults == ()
        assert_same_values(name, program, schedule)


@pytest.mark.parametrize("name", ["layers", "three_in_a_row"])
def test_the_parts_of_a_pair_have_plans_of_their_own(name: str):
    program, problem = planned(name, 3)
    (first, *_), (last, *_) = program.nest.ranges[0], program.nest.ranges[1]
    high = len(program.loops) // 2
    assert first < last and program.loops[high].start == 3
    for way in WAYS[-2:]:
        every = moving(problem, way)
        part = {
            t.value
            for t in crossing(problem)
            if t.crossing is not None and t.crossing.count == 3
        }
        only = Schedule(
            tuple(s for s in every.stores if s.value in part),
            tuple(f for f in every.fetches if f.value in part),
        )
        assert 0 < len(only.stores) < len(every.stores)
        for schedule in (every, only):
            assert replay(problem, schedule).faults == ()
            assert_same_values(name, program, schedule)


@pytest.mark.parametrize("name", STEPS)
def test_with_as_little_memory_as_possible(name: str):
    step, args = get(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutoTMWarning)
        found = autotm.jit(step, budget="min")(*args)
    assert_close(jax.tree.leaves(found), wanted(name), 2e-5)


def test_donated_arguments():
    step, args = get("accumulated_gradients")
    ws, xs = args
    jitted = autotm.jit(step, budget="min", donate_argnums=0)
    found = jitted(ws.copy(), xs)
    assert_close(jax.tree.leaves(found), wanted("accumulated_gradients"), 2e-5)


@pytest.mark.parametrize(("name", "budget"), [("made_by_two", 0.8), ("counted", 0.65)])
@pytest.mark.filterwarnings("ignore:On a cpu, host memory is device memory")
def test_with_a_budget_that_cuts_loops(name: str, budget: float):
    step, args = get(name)
    jitted = autotm.jit(step, budget=budget)
    assert_close(jax.tree.leaves(jitted(*args)), wanted(name), 2e-5)
    plan = jitted.plan(*args)
    assert plan.program is not None
    assert len(plan.program.loops) > len(planned(name)[0].loops)
