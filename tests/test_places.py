"""Constraints on results, moved to where their operands are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from autotm_jax.trace import Flat, build_program
from autotm_jax.trace.flatten import flatten
from autotm_jax.trace.places import hold_where_made

from .meshes import mesh


def held(array: Any) -> Any:
    sharding = NamedSharding(mesh(data=4), PartitionSpec("data"))
    return jax.lax.with_sharding_constraint(array, sharding)


def flat_of(fun: Callable[..., Any], *shapes: Any) -> Flat:
    avals = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return flatten(jax.make_jaxpr(fun)(*avals), loops=True)


def names(flat: Flat) -> list[str]:
    return [e.eqn.primitive.name for e in flat.equations]


def test_what_reads_a_result_reads_what_is_held():
    def step(w: Any, m: Any) -> Any:
        m = m * 0.5
        w = w - m
        return held(w), held(m)

    flat = flat_of(step, (4,), (4,))
    moved = hold_where_made(flat)
    constraint = "sharding_constraint"
    assert names(moved) == ["mul", constraint, "sub", constraint]
    _, moment, update, _ = moved.equations
    assert update.operands == (0, *moment.outputs)
    assert moved.results == flat.results
    assert hold_where_made(moved) == moved


def test_other_constraints_stay_where_they_are():
    def inner(w: Any) -> Any:
        y = w * 2
        return held(y) + 1, y  # one that is no result, and a value that is one itself

    def argument(w: Any) -> Any:
        return held(w), w * 2

    def twice(w: Any) -> Any:
        y = w * 2
        return held(y), held(y), y + 1

    for fun in (inner, argument):
        flat = flat_of(fun, (4,))
        assert hold_where_made(flat) == flat
    first, second, _ = hold_where_made(flat_of(twice, (4,))).results
    assert first != second


def test_what_a_loop_leaves_stays_where_it_is():
    def step(x: Any) -> Any:
        y, _ = jax.lax.scan(lambda c, _: (c * 2, None), x, None, length=3)
        return held(y), y + 1

    flat = flat_of(step, (4,))
    assert hold_where_made(flat) == flat


def test_a_moment_is_one_value_of_a_program():
    def step(w: Any, m: Any, x: Any) -> Any:
        m = m * 0.9 + x.T @ x
        return held(w - m), held(m)

    avals = [jax.ShapeDtypeStruct((8, 8), np.float32)] * 3
    program = build_program(jax.make_jaxpr(step)(*avals), [True, True, False])
    written = [v for segment in program.segments for v in segment.body.writes]
    assert sorted(written) == sorted(program.returned)
