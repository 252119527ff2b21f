"""A step planned for several budgets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import Point, Sweep


SHAPE = jax.ShapeDtypeStruct((8192, 256), jnp.float32)
WEIGHTS = [jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 6


def step(weights: Any, x: Any, wrap: Any = lambda f: f) -> Any:
    @wrap
    def layer(x: Any, weight: Any) -> Any:
        return jnp.sin(jnp.tanh(x @ weight))

    def loss(weights: Any) -> Any:
        hidden = x
        for weight in weights:
            hidden = layer(hidden, weight)
        return jnp.mean(hidden**2)

    return jax.grad(loss)(weights)


def with_checkpoint(weights: Any, x: Any) -> Any:
    return step(weights, x, jax.checkpoint)


def test_a_sweep():
    told: list[str] = []
    options = {"target": "h100-sxm", "progress": told.append}
    budgets = ["1GiB", 0.9, "min", 1000]
    baselines = {"jax.checkpoint": with_checkpoint}
    found = autotm.sweep(
        step, (WEIGHTS, SHAPE), budgets, baselines=baselines, **options
    )
    loose, near, least, none = found.points
    assert [p.name for p in found.points] == ["1GiB", "0.9", "min", "1000 B"]
    assert loose.plan is not None and loose.plan.is_untouched
    assert loose.device_bytes and near.device_bytes and least.device_bytes
    assert loose.device_bytes > near.device_bytes >= least.device_bytes
    assert loose.seconds is not None and near.seconds is not None
    assert loose.seconds <= near.seconds
    assert none.plan is None and none.reason.startswith("The budget of 1000 B is less")
    plain, checkpoint = found.baselines
    assert (plain.name, checkpoint.name) == ("jax.jit", "jax.checkpoint")
    assert plain.device_bytes == loose.device_bytes
    assert plain.seconds == loose.seconds
    # What it computes again is counted.
    assert checkpoint.seconds is not None and plain.seconds is not None
    assert checkpoint.seconds > plain.seconds
    assert told == [
        "budget 1GiB",
        "budget 0.9",
        "budget min",
        "budget 1000 B",
        "jax.jit",
        "jax.checkpoint",
    ]


def test_what_it_says():
    points = Point("2GiB", 2**31, 0.1), Point("1B", None, None, reason="too little")
    text = str(Sweep(points, (Point("jax.jit", 2**32, 0.08), Point("x", 8, None))))
    assert text.splitlines() == [
        "budget          device          step  of jax.jit",
        "2GiB          2.00 GiB     100.00 ms     1.250 x",
        "1B       cannot be met",
        "jax.jit       4.00 GiB      80.00 ms     1.000 x",
        "x                  8 B  not analysed",
        "Times are modelled.",
    ]


def test_equal_budgets_are_points_each():
    found = autotm.sweep(jnp.sin, (SHAPE,), ["1GiB", "1GiB"])
    assert len(found.points) == 2


def test_a_step_that_cannot_be_planned():
    def counting(x: Any) -> Any:
        counter = jax.new_ref(x)
        counter[...] += 1
        return counter[...]

    with pytest.warns(autotm.AutoTMWarning, match="mutable arrays"):
        found = autotm.sweep(counting, (SHAPE,), ["1GiB"])
    assert found.points[0].device_bytes is None
    assert found.baselines[0].reason.startswith("it reads and writes mutable arrays")
    assert str(found).count("not analysed") == 2


def test_a_bad_budget_is_an_error_at_once():
    with pytest.raises(autotm.BudgetError, match="'bananas'"):
        autotm.sweep(step, (WEIGHTS, SHAPE), ["1GiB", "bananas"])
