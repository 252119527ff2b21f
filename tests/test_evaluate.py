from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax.trace import evaluate, register_evaluation
from autotm_jax.trace.evaluate import _rules

from .programs import program_of, run
from .steps import assert_close


def pooled(reduce: Any, start: Any, padding: Any) -> Any:
    """The gradient of a pooling."""

    def loss(x: Any) -> Any:
        y = jax.lax.reduce_window(
            jnp.tanh(x), start, reduce, (1, 3, 3, 1), (1, 2, 2, 1), padding
        )
        return jnp.sum(y * jnp.cos(y))

    return jax.grad(loss)


@pytest.mark.parametrize(
    "padding",
    [
        "SAME",
        "VALID",
        ((0, 0), (1, 1), (1, 1), (0, 0)),
        ((0, 0), (2, 0), (0, 1), (0, 0)),
    ],
)
@pytest.mark.parametrize(
    ("reduce", "start"),
    [(jax.lax.max, -jnp.inf), (jax.lax.min, jnp.inf), (jax.lax.add, 0.0)],
)
def test_pooling(reduce: Any, start: Any, padding: Any):
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    step = pooled(reduce, start, padding)
    program = program_of(step, x)
    assert_close(run(program, x), [jax.jit(step)(x)])


def test_buffers_are_filled_behind_a_barrier():
    def step(x: Any, at: Any) -> Any:
        y = x @ x
        return jnp.zeros((64, 64)).at[at].add(y)

    x, at = jnp.ones((8, 64)) @ jnp.ones((64, 64)), jnp.arange(8)
    square = jnp.eye(64)

    def whole(x: Any, at: Any) -> Any:
        return jnp.zeros((64, 64)).at[at].add((x @ square)[:8])

    program = program_of(whole, x, at)
    text = str(jax.make_jaxpr(lambda *a: run(program, *a))(x, at))
    assert "optimization_barrier" in text
    assert_close(run(program, x, at), [jax.jit(whole)(x, at)])


def test_a_program_without_buffers_has_no_barrier():
    x = jnp.ones((8, 8))
    program = program_of(lambda x: jnp.sin(x @ x), x)
    text = str(jax.make_jaxpr(lambda *a: run(program, *a))(x))
    assert "optimization_barrier" not in text


def test_a_rule_of_ones_own():
    x = jnp.ones((8, 8))
    program = program_of(lambda x: jnp.sin(x @ x), x)
    assert "sin" not in _rules
    try:
        register_evaluation("sin")(lambda anchor, eqn, v: [anchor(jnp.zeros(())) + v])
        assert_close(run(program, x), [x @ x])
    finally:
        del _rules["sin"]


def test_only_what_is_written_comes_back():
    x = jnp.ones((64, 64))
    program = program_of(lambda x: jnp.sum(jnp.tanh(x @ x) @ x), x)
    body = program.segments[0].body
    there = dict(zip(program.arguments, [x], strict=True))
    found = evaluate(program, body, there.__getitem__)
    assert set(found) == set(body.writes)


def test_source_lines_and_scopes_are_kept():
    def step(x: Any) -> Any:
        with jax.named_scope("here_it_is"):
            return jnp.sin(x @ x)

    x = jnp.ones((8, 8))
    program = program_of(step, x)
    lowered = jax.jit(lambda *a: run(program, *a)).lower(x)
    text = lowered.as_text(debug_info=True)
    assert "here_it_is" in text
    assert "test_evaluate.py" in text


@pytest.mark.parametrize("reverse", [False, True])
def test_stacks_of_loops_are_made_behind_a_barrier(reverse: bool):
    def step(x: Any, w: Any) -> Any:
        def body(carry: Any, row: Any) -> Any:
            carry = jnp.tanh(carry @ w + row)
            return carry, (carry.sum(), {"twice": 2 * carry, "bits": carry > 0})

        return jax.lax.scan(body, x[0], x, reverse=reverse)

    x = jax.random.normal(jax.random.key(1), (5, 4))
    w = jax.random.normal(jax.random.key(2), (4, 4))
    program = program_of(step, x, w)
    text = str(jax.make_jaxpr(lambda *a: run(program, *a))(x, w))
    assert text.count("optimization_barrier") == 3
    assert_close(run(program, x, w), jax.tree.leaves(step(x, w)), 1e-6)


def test_loops_that_stack_nothing_or_keys_are_bound_as_they_are():
    def step(x: Any, key: Any) -> Any:
        keys = jax.lax.scan(lambda k, _: (jax.random.fold_in(k, 1), k), key, None, 3)[1]
        return jax.lax.fori_loop(0, 3, lambda _, c: c @ c, x), keys

    x, key = jnp.eye(3), jax.random.key(0)
    program = program_of(step, x, key)
    assert "optimization_barrier" not in str(
        jax.make_jaxpr(lambda *a: run(program, *a))(x, key)
    )
    assert_close(run(program, x, key), list(step(x, key)))
