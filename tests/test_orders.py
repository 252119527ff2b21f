"""Which order of a step is planned first."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.trace import Order

from .compiling import needs_cuda_plugin


def attention(p: Any, x: jax.Array) -> jax.Array:
    """Written out, so that its weights are values of the step."""
    heads = jnp.einsum("btd,cdhk->cbhtk", x, p["qkv"])
    weights = jax.nn.softmax(jnp.einsum("bhtk,bhsk->bhts", heads[0], heads[1]))
    found = jnp.einsum("bhts,bhsk->bthk", weights, heads[2])
    return x + jnp.einsum("bthk,hkd->btd", found, p["out"])


def chain(p: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ p["out"].reshape(64, 64))


def train(layer: Any) -> Any:
    def loss(params: Any, x: jax.Array) -> jax.Array:
        for p in params:
            x = layer(p, x)
        return (x**2).mean()

    def step(params: Any, x: jax.Array) -> Any:
        grads = jax.grad(loss)(params, x)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)

    return step


PARAMS = [
    {
        "qkv": jnp.ones((3, 64, 4, 16)),
        "out": jnp.ones((4, 16, 64)),
    }
] * 3
X = jnp.ones((4, 256, 64))


@pytest.mark.parametrize(
    "layer, budget, order",
    [
        # As traced, the gradient of its weights is made while they and their sums are
        # there for that of the values: three of that size, where two will do.
        (attention, "min", Order.WEIGHTS_LAST),
        (chain, "min", Order.AS_TRACED),
        (chain, 0.8, Order.WEIGHTS_LAST),
    ],
)
def test_for_as_little_as_possible_that_which_touches_least(layer, budget, order):
    jitted = autotm.jit(train(layer), budget=budget, donate_argnums=0)
    plan = jitted.plan(jax.eval_shape(lambda: PARAMS), jax.eval_shape(lambda: X))
    assert plan.program is not None
    assert plan.program.order is order


@needs_cuda_plugin
def test_no_budget_is_kept_that_is_far_below_the_least():
    target, args = "h100-sxm", (PARAMS, X)
    step = train(attention)
    least = autotm.jit(step, budget="min", target=target, donate_argnums=0)
    plan = least.verify(*args)
    assert plan.realised is not None
    below = int(0.85 * plan.realised.device_bytes)
    tight = autotm.jit(step, budget=below, target=target, donate_argnums=0)
    with pytest.raises(autotm.InfeasibleBudget):
        tight.plan(*args)
