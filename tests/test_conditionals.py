"""What conditionals hand on, and other ways to run them."""

from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from autotm_jax.trace.conditionals import (
    as_it_is,
    is_conditional,
    pass_on,
    with_choices,
)
from autotm_jax.trace.flatten import flatten
from autotm_jax.trace.variants import VARIANTS, Choice

from .programs import program_of, run
from .steps import assert_close


X = jnp.linspace(-1.0, 1.0, 16).reshape(4, 4)


def hands_on(x: Any, y: Any) -> Any:
    """Both branches return `y` second, and one of them `x` last."""

    def one(x: Any, y: Any) -> Any:
        return x @ y, y, jnp.float32(2), x

    def other(x: Any, y: Any) -> Any:
        return jnp.sin(x), y, jnp.float32(3), y

    return jax.lax.cond(x[0, 0] > 0, one, other, x, y)


def test_what_both_branches_hand_on_is_the_operand():
    flat = flatten(jax.make_jaxpr(hands_on)(X, X))
    passed = pass_on(flat)
    assert passed.results[1] == flat.arguments[1]
    assert passed.results[0] == flat.results[0]
    assert passed.results[2:] == flat.results[2:]


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_results_are_the_same(sign: int):
    def step(x: Any, y: Any) -> Any:
        for _ in range(3):
            x, y, z, w = hands_on(x, y)
            x, y, _, _ = hands_on(x @ y + z, jnp.cos(w))
        return x, y

    operands = sign * X, X.T
    wanted = jax.tree.leaves(jax.jit(step)(*operands))
    assert_close(run(program_of(step, *operands), *operands), wanted)


def test_a_weak_type_is_another_type():
    def step(x: Any) -> Any:
        def one(x: Any) -> Any:
            return x, x + 1

        # The results have one type, which is not that of a Python scalar.
        return jax.lax.cond(x > 0, one, lambda x: (x, jnp.float32(2)), x)

    flat = flatten(jax.make_jaxpr(step)(1.0))
    passed = pass_on(flat)
    found = [passed.avals[value] for value in passed.results]
    assert found == [flat.avals[value] for value in flat.results]
    assert len({aval.weak_type for aval in found}) == 2


def test_a_step_without_conditionals_is_left_as_it_is():
    flat = flatten(jax.make_jaxpr(lambda x: jnp.sin(x) @ x)(X))
    assert pass_on(flat) is flat
    assert with_choices(flat, None) is flat


def test_ways_are_asked_for_where_there_may_be_some():
    def step(x: Any) -> Any:
        y = jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x)
        jax.lax.cond(x[0, 0] > 0, lambda: jax.debug.print("{}", 1), lambda: None)
        return jax.lax.cond(y[0, 0] > 0, jnp.sin, jnp.tanh, y @ y)

    asked = []

    def choose(eqn: Any) -> Choice | None:
        asked.append(eqn)
        if len(asked) == 1:
            return None
        return Choice("it", ("one", "other"), (as_it_is(eqn),) * 2, ())

    flat = flatten(jax.make_jaxpr(step)(X))
    names = [e.eqn.primitive.name for e in flat.equations]
    found = with_choices(flat, choose)
    assert names.count("cond") == 3 and len(asked) == 2
    assert [e.eqn.primitive.name for e in found.equations].count(VARIANTS) == 1
    assert all(map(is_conditional, asked))


def test_an_equation_as_it_is():
    eqn = jax.make_jaxpr(lambda x: jnp.sin(x) @ x)(X).jaxpr.eqns[-1]
    (found,) = jax.extend.core.jaxpr_as_fun(as_it_is(eqn))(X, X)
    assert np.array_equal(found, X @ X)
