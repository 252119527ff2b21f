"""Copies that XLA leaves out, as nothing is read of them."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

import autotm_jax as autotm
from autotm_jax.compile.verify import examine
from autotm_jax.emit import emit, unread_copies
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
    first, second = schedule.fetches
    assert unread_copies(program, schedule) == (first,)
    assert copies_in_use(program, schedule) == schedule.copies - 1


def test_a_store_for_such_a_fetch_alone():
    program = chain()
    schedule = put_off(program)
    first, _ = schedule.fetches
    a, last = first.value, len(program.segments) - 1
    # For what is computed again, all of it is.
    again = tuple(sorted((Recompute(a, last), *schedule.recomputes)))
    schedule = Schedule(schedule.stores, (first,), again)
    assert unread_copies(program, schedule) == (*schedule.stores, first)
    assert copies_in_use(program, schedule) == 0


def test_where_nothing_is_computed_again_all_is_read():
    program = chain()
    schedule = put_off(program)
    assert unread_copies(program, Schedule(schedule.stores, schedule.fetches)) == ()


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
