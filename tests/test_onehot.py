"""Scatters of one element per row, as selects."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autotm_jax.trace.flatten import flatten
from autotm_jax.trace.onehot import select_one_hot

from .programs import program_of, run


def primitives(step: Callable[..., Any], *args: Any) -> list[str]:
    flat = select_one_hot(flatten(jax.jit(step).trace(*args).jaxpr))
    return [e.eqn.primitive.name for e in flat.equations]


def along(axis: int, mode: str | None = None) -> Callable[..., Any]:
    """The gradient of picking one element per row."""

    def loss(x: Any, at: Any) -> Any:
        picked = jnp.take_along_axis(jnp.sin(x), at, axis, mode=mode)
        return jnp.sum(picked * jnp.cos(picked))

    return jax.grad(loss)


def numbers(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(0), shape)


def positions(low: int, high: int, *shape: int, dtype: Any = jnp.int32) -> jax.Array:
    return jax.random.randint(jax.random.key(1), shape, low, high).astype(dtype)


def assert_same(step: Callable[..., Any], *args: Any) -> None:
    ours = run(program_of(step, *args), *args)
    for one, other in zip(ours, jax.tree.leaves(jax.jit(step)(*args)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
        assert one.dtype == other.dtype


@pytest.mark.parametrize(
    ("axis", "shape", "picked"),
    [
        (2, (4, 5, 7), (4, 5, 1)),
        (-1, (4, 5, 7), (4, 5, 1)),
        (0, (6, 3), (1, 3)),
        (1, (2, 5, 3, 4), (2, 1, 3, 4)),
        (0, (5,), (1,)),
        (1, (4, 1), (4, 1)),
    ],
)
@pytest.mark.parametrize("mode", [None, "clip", "fill", "promise_in_bounds"])
def test_take_along_axis(
    axis: int, shape: tuple[int, ...], picked: tuple[int, ...], mode: str | None
):
    at = positions(0, shape[axis], *picked)
    step = along(axis, mode)
    assert "scatter-add" not in primitives(step, numbers(*shape), at)
    assert_same(step, numbers(*shape), at)


@pytest.mark.parametrize("mode", [None, "clip", "fill"])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.uint32])
def test_positions_outside_of_the_row(mode: str, dtype: Any):
    at = positions(0 if dtype == jnp.uint32 else -9, 12, 16, 1, dtype=dtype)
    x = numbers(16, 4)

    def step(x: Any, at: Any, update: Any) -> Any:
        # Without the NaN that reading outside gives.
        _, back = jax.vjp(lambda x: jnp.take_along_axis(x, at, 1, mode=mode), x)
        return back(update)

    assert "scatter-add" not in primitives(step, x, at, numbers(16, 1))
    assert_same(step, x, at, numbers(16, 1))


def test_small_positions_in_a_long_row():
    at = positions(0, 120, 3, 1, dtype=jnp.int8)
    assert_same(along(1), numbers(3, 300), at)


def test_indexing_under_vmap():
    def step(x: Any, at: Any) -> Any:
        return jax.grad(lambda x: jax.vmap(lambda a, i: a[i])(x, at).sum())(x)

    x, at = numbers(6, 5), positions(0, 5, 6)
    assert "scatter-add" not in primitives(step, x, at)
    assert_same(step, x, at)


def test_rows_counted_in_another_order():
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(),
        inserted_window_dims=(1,),
        scatter_dims_to_operand_dims=(1,),
        operand_batching_dims=(0, 2),
        scatter_indices_batching_dims=(1, 0),
    )

    def step(at: Any, update: Any) -> Any:
        return jax.lax.scatter_add(jnp.ones((4, 5, 3)), at, update, dimensions)

    at = positions(0, 5, 3, 4, 1)
    assert "scatter-add" not in primitives(step, at, numbers(3, 4))
    assert_same(step, at, numbers(3, 4))


def test_setting_instead_of_adding():
    def step(at: Any, update: Any) -> Any:
        put = jnp.put_along_axis
        return put(jnp.full((4, 5), 2.0), at, update, axis=1, inplace=False)

    at, update = positions(0, 5, 4, 1), numbers(4, 1)
    assert_same(step, at, update)


def test_applying_a_function_stays_a_scatter():
    def step(x: Any, at: Any) -> Any:
        def row(a: Any, i: Any) -> Any:
            return jnp.full(a.shape, 2.0).at[i].apply(lambda v: 10 * v + 1) + a

        return jax.vmap(row)(x, at)

    args = numbers(4, 7), positions(0, 7, 4)
    assert "scatter" in primitives(step, *args)
    assert_same(step, *args)


def test_a_weak_type_stays_a_scatter():
    def step(at: Any) -> Any:
        return jax.vmap(lambda i: jnp.full((5,), 2.0).at[i].set(3.0))(at)

    at = positions(0, 5, 4)
    closed = jax.jit(step).trace(at).jaxpr
    assert closed.out_avals[0].weak_type
    assert "scatter" in primitives(step, at)


def test_more_than_one_element_per_row_stays_a_scatter():
    at = positions(0, 7, 4, 2)
    assert "scatter-add" in primitives(along(1), numbers(4, 7), at)
    assert_same(along(1), numbers(4, 7), at)


def test_a_scatter_into_an_array_stays_a_scatter():
    def step(x: Any, at: Any, update: Any) -> Any:
        rows = jax.vmap(lambda a, i, u: a.at[i].add(u))
        return rows(x, at, update)

    args = numbers(4, 7), positions(0, 7, 4), numbers(4)
    assert "scatter-add" in primitives(step, *args)
    assert_same(step, *args)


def test_an_embedding_gradient_stays_a_scatter():
    def step(table: Any, at: Any) -> Any:
        return jax.grad(lambda t: jnp.sin(t[at]).sum())(table)

    args = numbers(6, 3), positions(0, 6, 8)
    assert "scatter-add" in primitives(step, *args)
    assert_same(step, *args)


def test_the_user_line_is_kept():
    x, at = numbers(4, 7), positions(0, 7, 4, 1)
    sources = [v.source for v in program_of(along(1), x, at).values]
    assert any("test_onehot.py" in source for source in sources)
    assert not any("trace/onehot.py" in source for source in sources)
