"""Plans of what is inside conditionals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxpr_as_fun, jaxprs_in_params

import autotm_jax as autotm
from autotm_jax.candidate import Candidate
from autotm_jax.compile import device_bytes
from autotm_jax.formulate import live_bytes
from autotm_jax.inside import Inside
from autotm_jax.machine import Target, describe
from autotm_jax.solve import SolverOptions
from autotm_jax.trace import Choice, Order, build_program, is_conditional

from .compiling import needs_cuda_plugin
from .steps import assert_close, chain, chain_arguments


X, WEIGHTS = chain_arguments(batch=256)


def train(x: Any, weights: Any) -> Any:
    """A gradient that is taken in some steps only."""
    gradients = jax.grad(chain, argnums=1)(x, weights)
    return jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradients)


def now_and_then(number: Any, x: Any, weights: Any) -> Any:
    """Trains in every other step."""
    return jax.lax.cond(number % 2 == 0, train, lambda _, w: w, x, weights)


def twice(number: Any, x: Any, weights: Any) -> Any:
    """Trains in two of three branches."""

    def other(x: Any, weights: Any) -> Any:
        return train(jnp.sin(x), weights)

    return jax.lax.switch(number, [train, lambda _, w: w, other], x, weights)


def seldom(number: Any, x: Any, weights: Any) -> Any:
    """A conditional that does nothing but ask another one."""

    def often(x: Any, weights: Any) -> Any:
        return now_and_then(weights[0][0, 0] > 0, x, weights)

    return jax.lax.cond(number > 0, often, lambda _, w: w, x, weights)


def equation_of(step: Callable[..., Any]) -> Any:
    """The conditional of a step."""
    (eqn,) = (
        eqn
        for eqn in jax.make_jaxpr(step)(0, X, WEIGHTS).jaxpr.eqns
        if is_conditional(eqn)
    )
    return eqn


def chosen(
    step: Callable[..., Any], worth: float = 0, host: int = 2**40
) -> Choice | None:
    """The ways to run the conditional of a step."""
    target = Target(describe("cpu"))

    def candidate(closed: Any) -> Candidate:
        donated = [False] * len(closed.jaxpr.invars)
        program = build_program(closed, donated, Order.AS_TRACED, choose=inside)
        return Candidate(program, target, host, SolverOptions())

    inside = Inside(candidate, worth)
    eqn = equation_of(step)
    assert inside(eqn) is inside(eqn)
    return inside(eqn)


def count(name: str, jaxpr: Any) -> int:
    """How many equations of a primitive there are, at whatever depth."""
    inner = (count(name, j) for e in jaxpr.eqns for j in jaxprs_in_params(e.params))
    return sum(e.primitive.name == name for e in jaxpr.eqns) + sum(inner)


@pytest.mark.parametrize("step", [now_and_then, twice])
@pytest.mark.parametrize("host", [0, 2**40])
def test_every_way_gives_the_same(step: Callable[..., Any], host: int):
    choice = chosen(step, host=host)
    assert choice is not None and len(choice.names) > 2
    assert choice.names[0] == "as it is"
    assert choice.of.startswith("the conditional at ") and "test_inside.py" in choice.of
    for closed, planned in zip(choice.branches, choice.planned, strict=True):
        assert count("device_put", closed.jaxpr) == planned.copies
        assert bool(planned.copies) == bool(planned.host_bytes)
        run = jax.jit(jaxpr_as_fun(closed))
        for number in (-1, 0, 1, 2, 3):
            wanted = jax.tree.leaves(jax.jit(step)(number, X, WEIGHTS))
            is_cond = step is now_and_then
            branch = number % 2 == 0 if is_cond else min(max(number, 0), 2)
            assert_close(run(jnp.int32(branch), X, *WEIGHTS), wanted)
    assert (max(p.copies for p in choice.planned) > 0) == (host > 0)
    # The tightest first, and each of the others for something.
    added = [p.added for p in choice.planned[1:]]
    assert added == sorted(added, reverse=True) and len(set(added)) == len(added)


def test_a_small_conditional_is_left_alone():
    kept = live_bytes(build_program(jax.make_jaxpr(train)(X, WEIGHTS), [False] * 7))
    assert chosen(now_and_then, worth=0.9 * kept) is not None
    assert chosen(now_and_then, worth=2 * kept) is None


def test_a_conditional_that_needs_all_it_takes_is_left_alone():
    def step(number: Any, x: Any, weights: Any) -> Any:
        return jax.lax.cond(
            number > 0, lambda x, w: [x @ w[0]], lambda x, _: [x], x, weights
        )

    assert chosen(step) is None


ARGUMENTS = (
    jax.ShapeDtypeStruct((), jnp.int32),
    jax.ShapeDtypeStruct((8192, 1024), jnp.float32),
    [jax.ShapeDtypeStruct((1024, 1024), jnp.float32)] * 8,
)


@needs_cuda_plugin
@pytest.mark.parametrize(
    ("function", "budget", "options"),
    [
        (now_and_then, 0.55, {}),
        (now_and_then, 0.8, {"host_budget": 0}),
        (now_and_then, "min", {}),
        (seldom, "min", {}),
    ],
)
def test_a_gradient_in_a_branch_keeps_a_budget(
    function: Callable[..., Any], budget: Any, options: dict[str, Any]
):
    usually = {"donate_argnums": 2, "target": "h100-sxm"}
    step = autotm.jit(function, budget=budget, **usually, **options)
    plain = autotm.jit(function, budget="1TB", **usually)
    usual = device_bytes(plain.lower(*ARGUMENTS).compile())
    found = device_bytes(step.lower(*ARGUMENTS).compile())
    plan = step.plan(*ARGUMENTS)
    assert plan.realised is not None and plan.device_bytes is not None
    assert found <= (0.55 if budget == "min" else budget) * usual
    assert found == pytest.approx(plan.device_bytes, rel=0.03)
    # Nothing is outside of the conditional that could move.
    assert plan.schedule.copies == 0
    assert [branch.of for branch in plan.picked] == [plan.picked[0].of]
    assert "x the conditional at " in str(plan) and ", within " in str(plan)
    assert plan.host_bytes == plan.realised.host_bytes
    assert (plan.copies > 0) == (plan.host_bytes > 0)
    assert (f": {plan.copies} copies, " in str(plan)) == (plan.copies > 0)
    if options:
        assert plan.copies == 0
    else:
        assert plan.realised.copies is not None
        assert 0 < plan.copies <= plan.realised.copies


@needs_cuda_plugin
def test_layers_that_are_not_alike_are_computed_again():
    def layer(x: Any, parts: tuple[Any, Any]) -> Any:
        kind, w = parts
        return jax.lax.cond(
            kind, lambda x: jnp.tanh(x @ w) @ w, lambda x: jnp.sin(x @ w), x
        ), None

    def loss(ws: Any, kinds: Any, x: Any) -> Any:
        return (jax.lax.scan(layer, x, (kinds, ws))[0] ** 2).mean()

    args = (
        jax.ShapeDtypeStruct((8, 1024, 1024), jnp.float32),
        jax.ShapeDtypeStruct((8,), bool),
        jax.ShapeDtypeStruct((16384, 1024), jnp.float32),
    )
    step = autotm.jit(jax.grad(loss), budget=0.55, host_budget=0, target="h100-sxm")
    step.lower(*args).compile()
    plan = step.plan(*args)
    assert plan.program is not None and plan.budget is not None
    assert plan.realised is not None and plan.device_bytes is not None
    assert plan.realised.device_bytes <= plan.budget
    # What happens in a conditional is counted as one block, which may be too much.
    assert plan.realised.device_bytes == pytest.approx(plan.device_bytes, rel=0.06)
    again = {r.value for r in plan.schedule.recomputes}
    made = {
        plan.program.equations[i].eqn.primitive.name
        for v in again
        for i in plan.program.recomputations[v].equations
    }
    assert "cond" in made
    # All that one conditional makes comes from one run of it.
    assert count("cond", step.trace(*args).jaxpr) == 3 and len(again) > 1
