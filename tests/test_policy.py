"""Plans as policies of `jax.checkpoint`."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

import autotm_jax as autotm
from autotm_jax import Plan
from autotm_jax.report.policy import ways_by_name
from autotm_jax.solve import Fetch, Schedule, Store, Way, replay


X = jax.ShapeDtypeStruct((4096, 256), jnp.float32)
WEIGHTS = [jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 4


def step(weights: Any, x: Any) -> Any:
    def loss(weights: Any) -> Any:
        hidden = x
        for weight in weights:
            product = checkpoint_name(hidden @ weight, "product")
            hidden = checkpoint_name(jnp.tanh(product), "hidden")
        return jnp.mean(hidden**2)

    return jax.grad(loss)(weights)


def plan_of(schedule_of: Any = None) -> Plan:
    plan = autotm.jit(step, budget="min", target="h100-sxm").plan(WEIGHTS, X)
    if schedule_of is None:
        return plan
    assert plan.problem is not None
    problem = dataclasses.replace(plan.problem, device_limit=float("inf"))
    schedule = schedule_of(problem)
    state = replay(problem, schedule)
    assert not state.faults
    return dataclasses.replace(plan, schedule=schedule, problem=problem, replay=state)


def away(problem: Any) -> Schedule:
    """All that may move does."""
    stores, fetches = [], []
    for tensor in problem.tensors:
        for a, b in tensor.gaps(tensor.touches, 2) if tensor.movable else ():
            stores.append(Store(tensor.value, a, a + 1))
            fetches.append(Fetch(tensor.value, b, b))
    return Schedule(tuple(stores), tuple(fetches))


@pytest.mark.parametrize(
    ("schedule_of", "way"), [(lambda problem: Schedule(), Way.STAYS), (away, Way.MOVES)]
)
def test_what_moves_is_offloaded_and_what_stays_is_saved(schedule_of: Any, way: Way):
    plan = plan_of(schedule_of)
    ways = ways_by_name(plan)
    assert way in ways.values()
    (eqn,) = jax.make_jaxpr(lambda x: checkpoint_name(x, "any"))(1.0).jaxpr.eqns
    for name, found in ways.items():
        verdict = plan.policy()(eqn.primitive, name=name)
        is_offloaded = "Offloadable" in repr(verdict)
        assert is_offloaded == (found is Way.MOVES)
        is_saved = verdict is True or "Saveable" in repr(verdict)
        assert is_saved == (found is Way.STAYS)


def test_it_can_be_used():
    plan = plan_of()
    assert set(ways_by_name(plan)) == {"product", "hidden"}
    policy = plan.policy()

    @functools.partial(jax.checkpoint, policy=policy)
    def layer(x: Any, weight: Any) -> Any:
        product = checkpoint_name(x @ weight, "product")
        return checkpoint_name(jnp.tanh(product), "hidden")

    x, w = jnp.ones((4, 4)), jnp.full((4, 4), 0.1)
    found = jax.grad(lambda w: layer(x, w).sum())(w)
    expected = jax.grad(lambda w: jnp.tanh(x @ w).sum())(w)
    assert jnp.allclose(found, expected)


def test_a_step_without_names():
    plan = autotm.jit(
        lambda w, x: jax.grad(lambda w: jnp.tanh(jnp.tanh(x @ w) @ w).sum())(w),
        budget="min",
        target="h100-sxm",
    ).plan(WEIGHTS[0], X)
    with pytest.raises(autotm.ReportError) as caught:
        plan.policy()
    assert str(caught.value) == (
        "A policy of jax.checkpoint goes by names, and the step names no values. Name "
        "some with jax.ad_checkpoint.checkpoint_name, and plan it again."
    )
