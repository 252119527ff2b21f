import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import SolverOptions
from autotm_jax.emit import emit
from autotm_jax.formulate import formulate
from autotm_jax.machine import Target, describe
from autotm_jax.profile import estimate_costs
from autotm_jax.solve import (
    Fetch,
    JointProgram,
    Pick,
    Problem,
    Schedule,
    Store,
    Stream,
    offload_everything,
    recompute_everything,
    replay,
)
from autotm_jax.trace import Program

from .programs import program_of
from .steps import TINY, assert_close, chain_arguments, chain_step, get


HERE = Target(describe("cpu"))


def problem_of(program: Program) -> Problem:
    """Its placement problem, on a fast link, without a limit."""
    machine = describe("h100-sxm")
    costs = estimate_costs(program, HERE)
    return formulate(program, costs, machine, float("inf"), 2**60)


@functools.cache
def tiny(name: str) -> tuple[Program, Problem, JointProgram]:
    """A workload up to the solver."""
    program = program_of(get(name).step, *get(name).args)
    problem = problem_of(program)
    return program, problem, JointProgram(problem)


@functools.cache
def plain(name: str) -> tuple[Any, list[Any]]:
    """Flat arguments of a workload, and what plain `jax.jit` makes of them."""
    args = get(name).make(0)
    return jax.tree.leaves(args), jax.tree.leaves(jax.jit(get(name).step)(*args))


def primitives(program: Program, schedule: Schedule) -> list[str]:
    """The primitives of an emitted program, in order."""
    avals = [program.values[a].aval for a in program.arguments]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    jaxpr = jax.jit(emit(program, schedule)).trace(*shapes).jaxpr
    return [eqn.primitive.name for eqn in jaxpr.eqns]


def check(name: str, schedule: Schedule) -> None:
    """That an emitted workload gives the values of the plain one."""
    arguments, wanted = plain(name)
    found = jax.jit(emit(tiny(name)[0], schedule))(*arguments)
    assert_close(found, wanted)


@pytest.mark.parametrize("part", [0.0, 0.5])
@pytest.mark.parametrize("name", TINY)
def test_solved_schedules_give_the_same_values(name: str, part: float):
    program, problem, joint = tiny(name)
    options = SolverOptions(time_limit=20)
    least = joint.least_memory(options).objective
    limit = least + 1 + part * (replay(problem, Schedule()).device_peak - least)
    solution = joint.fastest(limit, options)
    schedule = solution.schedule
    assert schedule is not None
    bounded = dataclasses.replace(problem, device_limit=limit)
    assert replay(bounded, schedule).faults == ()
    if part == 0.0:
        assert schedule.stores or schedule.recomputes
    check(name, schedule)
    names = primitives(program, schedule)
    copies = len(schedule.stores) + len(schedule.fetches)
    assert names.count("device_put") == copies


@pytest.mark.parametrize("name", (*TINY, "dlrm-tiny"))
def test_moving_everything_gives_the_same_values(name: str):
    program, problem, _ = tiny(name)
    schedule = offload_everything(problem)
    check(name, schedule)
    names = primitives(program, schedule)
    assert schedule.stores
    assert names.count("device_put") == len(schedule.stores) + len(schedule.fetches)
    assert names.count("optimization_barrier") >= len(program.segments) - 1


@pytest.mark.parametrize("name", TINY)
def test_computing_everything_again_gives_the_same_values(name: str):
    program, problem, _ = tiny(name)
    schedule = recompute_everything(problem)
    assert schedule.recomputes
    assert replay(problem, schedule).faults == ()
    check(name, schedule)
    names = primitives(program, schedule)
    assert "device_put" not in names
    again = names.count("dot_general") + names.count("conv_general_dilated")
    alone = primitives(program, Schedule())
    assert len(names) > len(alone)
    assert again >= alone.count("dot_general") + alone.count("conv_general_dilated")


@pytest.mark.parametrize("name", TINY)
def test_an_empty_schedule_only_cuts(name: str):
    program, _, _ = tiny(name)
    check(name, Schedule())
    names = primitives(program, Schedule())
    assert "device_put" not in names
    assert names.count("optimization_barrier") >= len(program.segments) - 1


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("variant", [1, 2])
def test_picked_variants_give_the_same_values(variant: int, moved: bool):
    program, problem, _ = tiny("gpt-tiny-variants")
    wide = [k for k, others in problem.variants.items() if len(others) >= variant]
    # The batch of 4 is cut into 4 chunks; the rows of the loss into 16, too.
    assert len(wide) == (6 if variant == 1 else 2)
    start = offload_everything(problem) if moved else Schedule()
    picks = tuple(Pick(k, variant) for k in wide)
    schedule = dataclasses.replace(start, picks=picks)
    assert replay(problem, schedule).faults == ()
    check("gpt-tiny-variants", schedule)
    names = primitives(program, schedule)
    assert "scan" not in primitives(program, start)
    assert names.count("scan") == len(wide)
    bodies = [program.segments[p.segment].body.by(p.variant) for p in picks]
    assert all("scan" in _names(program, body.equations) for body in bodies)


def _names(program: Program, indices: Any) -> list[str]:
    return [program.equations[i].eqn.primitive.name for i in indices]


def test_a_branch_may_read_constants_of_its_own():
    table = jnp.arange(64.0).reshape(8, 8)
    both = autotm.variants(
        lambda x: jnp.cumsum(x @ x.T, 0),
        lambda x: jax.lax.map(lambda row: row @ table, x) * 0 + jnp.cumsum(x @ x.T, 0),
        names=("plain", "with a table"),
    )
    x = jax.random.normal(jax.random.key(0), (8, 8))
    program = program_of(lambda x: jnp.tanh(both(jnp.tanh(x @ x))), x)
    (k,) = (s.index for s in program.segments if s.body.branches)
    found = emit(program, Schedule(picks=(Pick(k, 1),)))(x)
    assert_close(found, emit(program, Schedule())(x))


def test_copies_stand_between_the_cuts_they_belong_to():
    program = program_of(chain_step, *chain_arguments())
    problem = problem_of(program)
    schedule = offload_everything(problem)
    avals = [program.values[a].aval for a in program.arguments]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    jaxpr = jax.jit(emit(program, schedule)).trace(*shapes).jaxpr
    # A fetch reads a host copy that has gone through a barrier, so XLA cannot undo it.
    made_by = {v: e.primitive.name for e in jaxpr.eqns for v in e.outvars}
    puts = [e for e in jaxpr.eqns if e.primitive.name == "device_put"]
    to_host = [e for e in puts if "Host" in str(e.params)]
    back = [e for e in puts if e not in to_host]
    assert len(to_host) == len(schedule.stores)
    assert len(back) == len(schedule.fetches)
    assert {made_by[e.invars[0]] for e in back} == {"optimization_barrier"}


def test_what_is_moved_is_in_memory_as_on_the_host():
    x, w = jnp.ones((2, 4, 6, 5)), [jnp.ones((4, 4, 3, 3)) / 36] * 3

    def loss(w: Any) -> Any:
        y = x
        for each in w:
            y = jnp.tanh(jax.lax.conv(y, each, (1, 1), "SAME"))
        return jnp.sum(y)

    program = program_of(jax.grad(loss), w)
    schedule = offload_everything(problem_of(program))
    eqns = jax.jit(emit(program, schedule)).trace(*w).jaxpr.eqns
    moved = {e.outvars[0].aval.shape for e in eqns if e.primitive.name == "device_put"}
    assert moved == {(2, 6, 5, 4)}
    assert_close(jax.jit(emit(program, schedule))(*w), jax.jit(jax.grad(loss))(w))


def test_literal_and_forwarded_results():
    def step(x: Any) -> Any:
        y = jnp.tanh(x @ x)
        return x, 3, y, y, jnp.sum(y @ x)

    x = jnp.arange(16.0).reshape(4, 4) / 16
    found = emit(program_of(step, x), Schedule())(x)
    assert_close(jax.tree.map(jnp.asarray, found), jax.tree.leaves(jax.jit(step)(x)))


def at_once(schedule: Schedule) -> Schedule:
    """The same moves, each with everything waiting for it."""
    return Schedule(
        tuple(Store(s.value, s.after, s.after + 1) for s in schedule.stores),
        tuple(Fetch(f.value, f.use, f.use) for f in schedule.fetches),
    )


def beside_one(schedule: Schedule) -> Schedule:
    """The same moves, each beside one segment that is not the nearest."""
    return Schedule(
        tuple(Store(s.value, s.after, s.after + 3, s.after + 2) for s in far(schedule)),
        tuple(
            Fetch(f.value, f.use - 2, f.use, f.use - 1)
            for f in schedule.fetches
            if f.value in {s.value for s in far(schedule)}
        ),
    )


def far(schedule: Schedule) -> list[Store]:
    """Stores of values that are away for long, over one gap."""
    uses = {f.value: f.use for f in schedule.fetches}
    once = [f.value for f in schedule.fetches]
    return [
        s
        for s in schedule.stores
        if once.count(s.value) == 1 and uses[s.value] - s.after > 6
    ]


def streamed(problem: Problem) -> Schedule:
    """Everything that may move is on the host for life."""
    return Schedule(
        streams=tuple(
            sorted(
                Stream(t.value, k)
                for t in problem.tensors
                if t.movable
                for k in t.touches
            )
        )
    )


@pytest.mark.parametrize("name", ["gpt-tiny", "resnet-tiny"])
def test_other_windows_give_the_same_values(name: str):
    program, problem, _ = tiny(name)
    moved = offload_everything(problem)
    for schedule in (at_once(moved), beside_one(moved)):
        assert schedule.stores
        assert replay(problem, schedule).faults == ()
        check(name, schedule)
        assert primitives(program, schedule).count("device_put") == schedule.copies


def test_a_fetch_may_begin_where_its_store_ends():
    program, problem, _ = tiny("gpt-tiny")
    moved = offload_everything(problem)
    away = {s.value: s.after for s in far(moved)}
    fetches = [f for f in moved.fetches if f.value in away]
    for width in (0, 2):  # the copy to the host: no time, and two segments
        schedule = Schedule(
            tuple(Store(v, a, a + 1 + width) for v, a in sorted(away.items())),
            tuple(Fetch(f.value, away[f.value] + 1 + width, f.use) for f in fetches),
        )
        assert replay(problem, schedule).faults == ()
        check("gpt-tiny", schedule)
        names = primitives(program, schedule)
        assert names.count("device_put") == schedule.copies > 0


def test_what_is_brought_waits_for_what_leaves_at_the_same_cut():
    program, problem, _ = tiny("gpt-tiny")
    moved = at_once(offload_everything(problem))
    assert {s.window[0] for s in moved.stores} & {f.window[0] for f in moved.fetches}
    avals = [program.values[a].aval for a in program.arguments]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    eqns = jax.jit(emit(program, moved)).trace(*shapes).jaxpr.eqns
    made_at = {v: i for i, eqn in enumerate(eqns) for v in eqn.outvars}
    last = -1
    for i, eqn in enumerate(eqns):
        if eqn.primitive.name != "device_put":
            continue
        if "Host" in str(eqn.params):
            last = i
        else:  # what it copies has gone through a barrier since
            assert made_at[eqn.invars[0]] > last


@pytest.mark.parametrize("name", TINY)
def test_streams_give_the_same_values(name: str):
    program, problem, _ = tiny(name)
    schedule = streamed(problem)
    assert schedule.streams
    check(name, schedule)
    assert primitives(program, schedule).count("device_put") == schedule.copies


def test_what_loops_begin_with_is_filled_behind_a_cut():
    # XLA would make the two one, which lives from the first loop to the second.
    def step(x: Any, y: Any) -> Any:
        first, _ = jax.lax.scan(lambda c, r: (c + r @ r, None), jnp.zeros((8, 8)), x)
        zeros = jnp.zeros((8, 8))
        return jax.lax.scan(lambda c, r: (c - r @ r @ first, None), zeros, y)[0]

    x = jnp.arange(192.0).reshape(3, 8, 8) / 192
    program = program_of(step, x, x, loops=True)
    empty = [s for s in program.segments if s.body.writes and not s.body.reads]
    assert len(empty) == 2
    run = jax.jit(emit(program, Schedule()))
    filled = [
        eqn.invars[0]
        for eqn in run.trace(x, x).jaxpr.eqns
        if eqn.primitive.name == "broadcast_in_dim"
        and eqn.outvars[0].aval.shape == (8, 8)
    ]
    # Before the first one nothing has been done.
    assert [hasattr(scalar, "val") for scalar in filled] == [True, False]
    assert_close(run(x, x), [jax.jit(step)(x, x)])


def test_results_keep_their_weak_types():
    def step(x: Any) -> Any:
        return jnp.sin(x @ x), jnp.broadcast_to(1.0, (8, 8))

    x = jnp.ones((8, 8))
    run = emit(program_of(step, x), Schedule())
    found, expected = (jax.make_jaxpr(f)(x).out_avals for f in (run, step))
    assert [a.weak_type for a in found] == [a.weak_type for a in expected]
    assert [a.weak_type for a in found] == [False, True]
