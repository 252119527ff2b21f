"""What nobody looks into runs as it is written; values around it are planned."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import io_callback
from jax.experimental import pallas as pl
from jax.sharding import AxisType, PartitionSpec

import autotm_jax as autotm

from .steps import assert_close, chain_arguments


Step = Callable[..., Any]
X, WEIGHTS = chain_arguments()
_steps: dict[str, Step] = {}


def opaque(primitive: str) -> Callable[[Step], Step]:
    """Registers a function of rows and a square matrix that has such an equation."""

    def register(step: Step) -> Step:
        _steps[primitive] = step
        return step

    return register


@opaque("shard_map")
def sharded(x: Any, w: Any) -> Any:
    # One of its axes is XLA's to divide: it stays whole.
    mesh = jax.make_mesh((1, 1), ("rows", "model"), axis_types=(AxisType.Auto,) * 2)
    rows = PartitionSpec("rows")
    specs = {"in_specs": (rows, PartitionSpec()), "out_specs": rows}
    specs |= {"axis_names": {"rows"}}
    return jax.shard_map(lambda x, w: jnp.tanh(x @ w), mesh=mesh, **specs)(x, w)


def _tanh(x: Any) -> Any:
    def kernel(x_ref: Any, out_ref: Any) -> None:
        out_ref[...] = jnp.tanh(x_ref[...])

    out = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pl.pallas_call(kernel, out_shape=out, interpret=True)(x)


@jax.custom_vjp
def _activation(x: Any) -> Any:
    return _tanh(x)


def _forward(x: Any) -> Any:
    y = _tanh(x)
    return y, y


_activation.defvjp(_forward, lambda y, dy: (dy * (1 - y * y),))


@opaque("pallas_call")
def written_in_pallas(x: Any, w: Any) -> Any:
    return _activation(x @ w)


@opaque("cholesky")
def by_a_library(x: Any, w: Any) -> Any:
    positive = w @ w.T + jnp.eye(len(w))
    return jnp.tanh(x @ jnp.linalg.cholesky(positive))


@opaque("custom_linear_solve")
def solved(x: Any, w: Any) -> Any:
    positive = w @ w.T + jnp.eye(len(w))
    rows, _ = jax.scipy.sparse.linalg.cg(lambda v: v @ positive, x, maxiter=5)
    return jnp.tanh(rows)


@pytest.mark.parametrize("primitive", _steps)
@pytest.mark.parametrize("in_a_loop", [False, True])
def test_values_around_it_are_planned(primitive: str, in_a_loop: bool):
    def loss(x: Any, weights: Any) -> Any:
        def layer(x: Any, w: Any) -> Any:
            return x + jnp.sin(_steps[primitive](x, w) @ w), None

        if in_a_loop:
            x, _ = jax.lax.scan(layer, x, jnp.stack(weights))
        else:
            for w in weights:
                x, _ = layer(x, w)
        return jnp.mean(x**2)

    gradient = jax.value_and_grad(loss, argnums=1)
    step = autotm.jit(gradient, budget="min")
    assert_close(step(X, WEIGHTS), jax.jit(gradient)(X, WEIGHTS))
    plan = step.plan(X, WEIGHTS)
    assert plan.program is not None
    assert plan.schedule.copies or plan.schedule.recomputes
    names = {e.eqn.primitive.name for e in plan.program.equations}
    assert primitive in names
    again = {
        plan.program.equations[i].eqn.primitive.name
        for fragment in plan.program.recomputations.values()
        for i in fragment.equations
    }
    # What a library computes may be computed again; what the user has arranged may not.
    assert (primitive in again) == (primitive == "cholesky")


def test_ordered_effects_happen_in_their_order():
    seen: list[float] = []

    def step(x: Any, weights: Any) -> Any:
        for w in weights:
            x = jnp.tanh(x @ w)
            io_callback(lambda v: seen.append(float(v)), None, x.sum(), ordered=True)
        return x

    autotm.jit(step, budget="min")(X, WEIGHTS)
    jax.effects_barrier()
    planned, seen = seen, []
    jax.jit(step)(X, WEIGHTS)
    jax.effects_barrier()
    assert len(planned) == len(WEIGHTS)
    assert planned == pytest.approx(seen, rel=1e-5)
