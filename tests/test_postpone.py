"""The order of kernels in a backward pass."""

from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import given, settings
from hypothesis import strategies as st

from autotm_jax.trace import Kind, Order, Program, build_program
from autotm_jax.trace.flatten import flatten
from autotm_jax.trace.postpone import postpone

from .programs import random_step, run
from .steps import assert_close


WIDTH, BATCH = 32, 256


def loss(weights: Any, x: Any) -> Any:
    """Three layers whose activation functions read their inputs again."""
    for weight in weights:
        x = jax.nn.gelu(x @ weight)
    return jnp.mean(x**2)


def arguments() -> Any:
    keys = jax.random.split(jax.random.key(0), 4)
    weights = [jax.random.normal(k, (WIDTH, WIDTH)) / WIDTH**0.5 for k in keys[1:]]
    return weights, jax.random.normal(keys[0], (BATCH, WIDTH))


def ordered(step: Any, order: Order, *args: Any) -> Program:
    donated = [False] * len(jax.tree.leaves(args))
    return build_program(jax.make_jaxpr(step)(*args), donated, order, loops=False)


def kernels(program: Program) -> list[tuple[int, ...]]:
    """The shapes that the kernels make, in order."""
    return [
        program.values[e.outputs[0]].aval.shape
        for s in program.segments
        for e in (program.equations[i] for i in s.body.equations)
        if e.kind is Kind.KERNEL
    ]


def test_the_gradient_of_a_weight_comes_after_that_of_its_input():
    args = arguments()
    forward = [(BATCH, WIDTH)] * 3
    weight, x = (WIDTH, WIDTH), (BATCH, WIDTH)
    traced = ordered(jax.grad(loss), Order.AS_TRACED, *args)
    assert kernels(traced) == [*forward, weight, x, weight, x, weight]
    last = ordered(jax.grad(loss), Order.WEIGHTS_LAST, *args)
    assert kernels(last) == [*forward, x, weight, x, weight, weight]


def test_the_values_are_the_same():
    args = arguments()
    wanted = jax.tree.leaves(jax.jit(jax.grad(loss))(*args))
    for order in Order:
        assert_close(run(ordered(jax.grad(loss), order, *args), *args), wanted)


def test_an_activation_can_then_be_computed_again_in_the_same_pass():
    program = ordered(jax.grad(loss), Order.WEIGHTS_LAST, *arguments())
    touches = program.touches()
    for value, k in program.joined:
        assert k in touches[value] or k + 1 in touches[value]
        joined = program.joined[value, k]
        body, again = program.segments[k].body, program.recomputations[value]
        assert {*joined.equations} == {*body.equations, *again.equations}
        assert value not in joined.reads
        assert (value in joined.writes) == (k < touches[value][-1])
    assert any(k not in touches[value] for value, k in program.joined)


def test_a_forward_pass_keeps_its_order():
    args = arguments()
    traced = ordered(loss, Order.AS_TRACED, *args)
    assert ordered(loss, Order.WEIGHTS_LAST, *args).signature == traced.signature


def test_what_has_effects_keeps_its_order():
    def told(weights: Any, x: Any) -> Any:
        grads = jax.grad(loss)(weights, x)
        for grad in grads:
            jax.debug.print("{}", grad.sum())
        return grads

    args = arguments()
    flat = flatten(jax.make_jaxpr(told)(*args))
    effects = [e for e in flat.equations if e.eqn.effects]
    assert len(effects) == 3
    assert [e for e in postpone(flat).equations if e.eqn.effects] == effects


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_operands_come_first(seed: int):
    x = jnp.linspace(-1.0, 1.0, 36).reshape(6, 6)
    flat = flatten(jax.make_jaxpr(random_step(seed))(x, x))
    there = {*flat.arguments, *(v for v, _ in flat.constants)}
    after = postpone(flat)
    assert sorted(e.outputs for e in after.equations) == sorted(
        e.outputs for e in flat.equations
    )
    for equation in after.equations:
        assert {i for i in equation.inputs if isinstance(i, int)} <= there
        there.update(equation.outputs)


def test_a_view_of_a_literal_in_front_of_a_kernel():
    def step(weights: Any, x: Any) -> Any:
        for weight in weights:
            start = jnp.reshape(0.5, (1, 1))
            carry, _ = jax.lax.scan(lambda c, r: (c + r.sum(), None), start, x @ weight)
            x = jnp.tanh(x + carry)
        return x

    args = arguments()
    for order in Order:
        program = ordered(step, order, *args)
        assert_close(run(program, *args), [jax.jit(step)(*args)])


def test_what_is_made_of_nothing_is_not_computed_again():
    def step(x: Any) -> Any:
        noise = jax.random.normal(jax.random.key(0), (WIDTH, WIDTH))
        y = x @ noise
        for _ in range(4):
            y = jnp.tanh(y @ noise[::-1])
        return y @ noise

    x = arguments()[1]
    program = ordered(step, Order.AS_TRACED, x)
    assert program.recomputations
    assert all(f.reads for f in program.recomputations.values())
