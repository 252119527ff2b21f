"""What of a value each device of a mesh has, and who says so."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from autotm_jax.trace import flatten, large_values, shardings_of, with_all_values
from autotm_jax.trace.bytes import axes_of, nbytes_of, shard_shape, ways_of


P = PartitionSpec
MESH = AbstractMesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        (P(), (16, 12)),
        (P("data"), (8, 12)),
        (P(None, "model"), (16, 3)),
        (P(("data", "model"), None), (2, 12)),
        (P(P.UNCONSTRAINED, "data"), (16, 6)),
    ],
)
def test_the_shape_of_a_part(spec: PartitionSpec, part: tuple[int, ...]):
    sharding = NamedSharding(MESH, spec)
    assert shard_shape((16, 12), sharding) == part
    aval = jax.ShapeDtypeStruct((16, 12), jnp.bfloat16)
    assert nbytes_of(aval, sharding) == 2 * np.prod(part)
    assert ways_of((16, 12), sharding) == 16 * 12 / np.prod(part)


def test_the_largest_part_where_they_differ():
    assert shard_shape((10, 3), NamedSharding(MESH, P("model"))) == (3, 3)


def test_what_is_not_divided_is_whole():
    assert shard_shape((3, 5), None) == (3, 5)
    assert ways_of((0, 5), None) == 1.0


def test_axes_by_dimension():
    found = axes_of(NamedSharding(MESH, P(("data", "model"))), 3)
    assert found == (("data", "model"), (), ())


def step(weights: jax.Array, x: jax.Array) -> jax.Array:
    def layer(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        def inner(y: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.tanh(y @ weight), None

        y, _ = jax.lax.scan(inner, x, length=2)
        return y, y.sum()

    x, sums = jax.lax.scan(layer, x, weights)
    x = jax.lax.while_loop(lambda y: y.max() > 1, lambda y: y @ weights[0] / 2, x)
    return x.mean() + sums.sum()


def test_a_step_that_returns_its_values_has_the_same_results():
    weights = jax.random.normal(jax.random.key(0), (3, 8, 8))
    x = jax.random.normal(jax.random.key(1), (4, 8))
    flat = flatten(jax.jit(step).trace(weights, x).jaxpr, loops=True)
    values = large_values(flat)
    results, seen = jax.jit(with_all_values(flat, values))(weights, x)
    np.testing.assert_allclose(results[0], step(weights, x), rtol=1e-6)
    # Values of loops are stacked, with an axis for each loop around.
    by_loop: dict[Any, set[int]] = {}
    for value, array in zip(values, seen, strict=True):
        by_loop.setdefault(array.ndim - flat.avals[value].ndim, set()).add(value)
    assert set(by_loop) == {0, 1, 2}


def test_axes_of_loops_are_left_out():
    weights, x = jnp.ones((3, 8, 8)), jnp.ones((4, 8))
    flat = flatten(jax.jit(step).trace(weights, x).jaxpr, loops=True)
    inner = next(e for e in flat.equations if e.eqn.primitive.name == "tanh")
    (value,) = inner.outputs
    found = NamedSharding(MESH, P(None, None, "data", "model"))
    assert shardings_of(flat, [value], [found])[value].spec == P("data", "model")


def test_what_is_filled_is_divided_as_what_reads_it():
    def masked(x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, jnp.zeros(x.shape)) @ x.T

    flat = flatten(jax.jit(masked).trace(jnp.ones((64, 64))).jaxpr)
    zeros = next(e for e in flat.equations if e.eqn.primitive.name.startswith("broadc"))
    select = next(e for e in flat.equations if e.eqn.primitive.name == "select_n")
    values = [*zeros.outputs, *select.outputs]
    said = [NamedSharding(MESH, P()), NamedSharding(MESH, P("data", None))]
    assert shardings_of(flat, values, said)[values[0]].spec == P("data", None)
