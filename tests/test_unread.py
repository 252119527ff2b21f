"""Copies that XLA leaves out, as nothing is read of them."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

import autotm_jax as autotm
from autotm_jax.compile.verify import examine
from autotm_jax.emit import Unread, emit, unread
from autotm_jax.solve import Fetch, Recompute, Schedule, Store
from autotm_jax.trace import Program

from .compiling import needs_cuda_plugin
from .programs import program_of


X = jnp.ones((64, 64))


def step(x: Any) -> Any:
    a = jnp.sin(x @ x)
    b = jnp.cos(a @ x)  # of which nothing is read for a while
    c = jnp.sin(x.T @ x)
    for _ in range(3):
        c = jnp.sin(c @ x)
    return c @ b


@functools.cache
def chain() -> Program:
    return program_of(step, X)


def value_of(program: Program, segment: int) -> int:
    (value,) = program.segments[segment].body.writes
    return value


def put_off(program: Program) -> Schedule:
    """`b` is not kept when it is made, but computed from `a` when it is read."""
    a, b = value_of(program, 0), value_of(program, 1)
    last = len(program.segments) - 1
    assert b in program.recomputations and b in program.segments[last].body.reads
    fetches = Fetch(a, 1, 1), Fetch(a, last, last)
    return Schedule((Store(a, 0, 1),), fetches, (Recompute(b, last),))


def copies_in_use(program: Program, schedule: Schedule) -> int:
    """How many copies of the emitted step a result depends on, as XLA sees it."""
    avals = [program.values[a].aval for a in program.arguments]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    jaxpr = jax.jit(emit(program, schedule)).trace(*shapes).jaxpr.jaxpr
    used = {v for v in jaxpr.outvars if not hasattr(v, "val")}
    found = 0
    for eqn in reversed(jaxpr.eqns):
        wanted = [v in used for v in eqn.outvars]
        inputs = eqn.invars if any(wanted) else []
        if eqn.primitive.name == "optimization_barrier":
            inputs = list(itertools.compress(inputs, wanted))
        found += eqn.primitive.name == "device_put" and any(wanted)
        used.update(v for v in inputs if not hasattr(v, "val"))
    return found


def test_what_is_fetched_for_a_segment_of_which_nothing_is_read():
    program = chain()
    schedule = put_off(program)
    first, _ = schedule.fetches
    assert unread(program, schedule) == Unread(frozenset({1}), (first,))
    assert copies_in_use(program, schedule) == schedule.copies - 1


def test_a_store_for_such_a_fetch_alone():
    program = chain()
    schedule = put_off(program)
    first, _ = schedule.fetches
    a, last = first.value, len(program.segments) - 1
    # For what is computed again, all of it is.
    again = tuple(sorted((Recompute(a, last), *schedule.recomputes)))
    schedule = Schedule(schedule.stores, (first,), again)
    found = Unread(frozenset({0, 1}), (*schedule.stores, first))
    assert unread(program, schedule) == found
    assert copies_in_use(program, schedule) == 0


def test_where_nothing_is_computed_again_all_is_read():
    program = chain()
    schedule = put_off(program)
    assert unread(program, Schedule(schedule.stores, schedule.fetches)) == Unread()


def test_state_that_is_fetched_for_such_a_segment():
    def step(w: Any, x: Any) -> Any:
        b = jnp.cos(x @ w)
        c = jnp.sin(x.T @ x)
        for _ in range(3):
            c = jnp.sin(c @ x)
        return w - c @ b, c

    program = program_of(step, X, X)
    w, _ = program.arguments
    program = dataclasses.replace(program, carried={w: program.results[0]})
    b, last = value_of(program, 0), len(program.segments) - 1
    reads = program.reads_of(w)
    assert reads[0] == 0 and reads[-1] == last
    fetches = Fetch(w, 0, 0), Fetch(w, last, last)
    store = Store(w, last, last + 1)
    schedule = Schedule((store,), fetches, (Recompute(b, last),))
    assert unread(program, schedule) == Unread(frozenset({0}), fetches[:1])
    # As it comes from the device here, it is brought to the host first.
    assert copies_in_use(program, schedule) - 1 == schedule.copies - 1


def test_a_segment_with_an_effect_runs():
    def shown(x: Any) -> Any:
        a = jnp.sin(x @ x)
        b = jnp.cos(a @ x)
        jax.debug.callback(lambda _: None, b[0, 0])
        c = jnp.sin(x.T @ x)
        for _ in range(3):
            c = jnp.sin(c @ x)
        return c @ b

    program = program_of(shown, X)
    a, b = value_of(program, 0), value_of(program, 1)
    last = len(program.segments) - 1
    fetches = Fetch(a, 1, 1), Fetch(a, last, last)
    schedule = Schedule((Store(a, 0, 1),), fetches, (Recompute(b, last),))
    assert unread(program, schedule) == Unread()


def test_what_one_loop_leaves_to_another_is_read():
    def loss(w: Any, x: Any) -> Any:
        def layer(h: Any, w: Any) -> Any:
            return jnp.tanh(jnp.sin(h @ w) @ w), None

        return jnp.sum(jax.lax.scan(layer, x, w)[0])

    program = program_of(jax.grad(loss), jnp.ones((4, 8, 8)), X[:8, :8], loops=True)
    crossing = [
        v for v, at in program.touches().items() if program.nest.crossing(v, at)
    ]
    again = [v for v in crossing if v in program.recomputations]
    assert again
    for value in again:
        for use in program.touches()[value][1:]:
            schedule = Schedule(recomputes=(Recompute(value, use),))
            assert unread(program, schedule) == Unread()


@needs_cuda_plugin
def test_xla_leaves_them_out():
    program, target = chain(), autotm.target("h100-sxm")
    schedule = put_off(program)
    compiled = jax.jit(emit(program, schedule)).lower(*target.place([X])).compile()
    needed = schedule.copies - 1
    assert examine(compiled, schedule, "cuda", needed).faults == ()
    assert examine(compiled, schedule, "cuda").faults == (
        "XLA kept 2 of the 3 planned copies between device and host memory",
    )
