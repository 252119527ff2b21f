from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import pytest
from jax.experimental import io_callback
from jax.interpreters import mlir

import autotm_jax as autotm
from autotm_jax import Kind, register_kind
from autotm_jax.trace.primitives import _KINDS, is_repeatable, kind_of

from .programs import program_of, run
from .steps import assert_close, chain_arguments, chain_step


X = jnp.linspace(-1.0, 1.0, 16).reshape(4, 4)


def last_equation(step: Any, *args: Any) -> Any:
    """The last JAX equation of a function."""
    return jax.make_jaxpr(step)(*args).jaxpr.eqns[-1]


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (jnp.sin, Kind.FUSED),
        (lambda x: x.T, Kind.FUSED),
        (lambda x: x + 1, Kind.FUSED),
        (lambda x: jax.lax.broadcast_in_dim(x, (2, 4, 4), (1, 2)), Kind.FUSED),
        (lambda x: x.astype(jnp.int32), Kind.FUSED),
        (lambda x: jnp.stack([x, x]), Kind.FUSED),
        (lambda x: jnp.unstack(x), Kind.FUSED),
        (lambda x: jax.lax.cumsum(x), Kind.MEMORY),
        (lambda x: jax.lax.reduce_max(x, (0,)), Kind.MEMORY),
        (lambda x: jax.lax.dynamic_update_slice(x, x[:1], (0, 0)), Kind.MEMORY),
        (lambda x: jax.lax.dot(x, x), Kind.KERNEL),
        (lambda x: jax.lax.sort(x), Kind.KERNEL),
        (lambda x: jax.lax.scan(lambda c, _: (c, None), x, None, 2)[0], Kind.KERNEL),
        (lambda x: jax.lax.while_loop(lambda c: False, lambda c: c, x), Kind.KERNEL),
        (lambda x: jax.lax.cond(True, jnp.sin, jnp.cos, x), Kind.KERNEL),
        (lambda x: jax.debug.callback(lambda v: None, x), Kind.KERNEL),
    ],
)
def test_kinds(step: Any, kind: Kind):
    assert kind_of(last_equation(step, X)) is kind


def custom(name: str, lowering: Any) -> jax.extend.core.Primitive:
    """A primitive that nobody has heard of."""
    primitive = jax.extend.core.Primitive(name)
    primitive.def_abstract_eval(lambda x: x)
    primitive.def_impl(lambda x: jax.jit(primitive.bind)(x))
    mlir.register_lowering(primitive, mlir.lower_fun(lowering, multiple_results=False))
    return primitive


def test_an_unknown_primitive_is_a_kernel():
    reverse = custom("unheard_of_reverse", lambda x: jnp.cumsum(x, 0))
    assert kind_of(last_equation(reverse.bind, X)) is Kind.KERNEL

    def step(x: Any) -> Any:
        for _ in range(3):
            x = jnp.tanh(reverse.bind(x) @ x)
        return x.sum(), reverse.bind(x)

    program = program_of(step, X)
    assert_close(run(program, X), jax.tree.leaves(jax.jit(step)(X)))
    assert_close(autotm.jit(step, budget="min")(X), jax.jit(step)(X))


def test_a_primitive_that_cannot_be_lowered_alone_is_a_kernel():
    broken = jax.extend.core.Primitive("unheard_of_broken")
    broken.def_abstract_eval(lambda x: x)
    assert kind_of(last_equation(broken.bind, X)) is Kind.KERNEL


def test_a_kind_of_ones_own():
    scan = custom("unheard_of_scan", lambda x: jnp.cumsum(x, 0))
    try:
        register_kind("unheard_of_scan", Kind.MEMORY)
        assert kind_of(last_equation(scan.bind, X)) is Kind.MEMORY
    finally:
        del _KINDS["unheard_of_scan"]


hold = jax.lax.optimization_barrier


def counted(x: Any, _: Any) -> Any:
    """How long it takes, nobody knows."""
    return jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ c, x), None


@pytest.mark.parametrize(
    ("step", "repeatable"),
    [
        (jnp.sin, True),
        (lambda x: x @ x, True),
        (lambda x: jax.lax.sort(x), True),
        (lambda x: jax.random.bits(jax.random.key(0), (4,)), True),
        (lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, 2)[0], True),
        (lambda x: jax.lax.scan(lambda c, _: (hold(c), None), x, None, 2)[0], False),
        (lambda x: jax.lax.scan(counted, x, None, 2)[0], False),
        (lambda x: counted(x, None)[0], False),
        (lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x), True),
        (lambda x: jax.lax.cond(x[0, 0] > 0, jax.nn.relu, jnp.cos, x), True),
        (lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, jax.lax.sort, x), True),
        (lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, hold, x), False),
        (lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, jax.jit(hold), x), False),
        (lambda x: jax.debug.callback(lambda v: None, x), False),
        (hold, False),
        (lambda x: jax.pure_callback(lambda v: v, x, x), False),
    ],
)
def test_what_may_run_twice(step: Any, repeatable: bool):
    jaxpr = jax.make_jaxpr(step)(X).jaxpr
    names = ("jit", "pjit")
    eqn = next((e for e in jaxpr.eqns[::-1] if e.primitive.name not in names), None)
    if eqn is None:
        eqn = jaxpr.eqns[-1].params["jaxpr"].jaxpr.eqns[-1]
    assert is_repeatable(eqn) == repeatable


@pytest.mark.parametrize("budget", ["min", None])
@pytest.mark.parametrize("ordered", [True, False])
def test_callbacks_run_once_and_in_order(budget: Any, ordered: bool):
    seen: list[int] = []

    def tell(number: int, x: Any) -> None:
        seen.append(number)

    def step(x: Any, weights: Any) -> Any:
        for i, weight in enumerate(weights):
            x = jnp.tanh(x @ weight)
            jax.debug.callback(lambda v, i=i: tell(i, v), x[0, 0], ordered=ordered)
        return jnp.mean(x)

    args = chain_arguments()
    planned = autotm.jit(step, budget=budget)
    for calls in (1, 2):
        assert_close(planned(*args), jnp.mean(chain_forward(*args)))
        jax.effects_barrier()
        wanted = list(range(6)) * calls
        assert (seen == wanted) if ordered else (sorted(seen) == sorted(wanted))


def chain_forward(x: Any, weights: Any) -> Any:
    for weight in weights:
        x = jnp.tanh(x @ weight)
    return x


def test_unordered_callbacks_in_a_step_that_moves_values():
    seen: list[int] = []

    def step(x: Any, weights: Any) -> Any:
        loss, grads = chain_step(x, weights)
        jax.debug.callback(lambda v: seen.append(1), loss)
        io_callback(lambda v: seen.append(2), None, grads[0][0, 0])
        return loss, grads

    args = chain_arguments()
    planned = autotm.jit(step, budget="min")
    found = planned(*args)
    jax.effects_barrier()
    assert sorted(seen) == [1, 2]
    assert_close(found, chain_step(*args))
    schedule = planned.plan(*args).schedule
    assert schedule.stores or schedule.recomputes


def test_an_unknown_element_wise_primitive_is_fused():
    cube = custom("unheard_of_cube", lambda x: x * x * x)
    assert kind_of(last_equation(cube.bind, X)) is Kind.FUSED


def test_ordered_callbacks_in_a_step_that_moves_values():
    seen: list[int] = []

    def step(x: Any, weights: Any) -> Any:
        loss, grads = chain_step(x, weights)
        for i in range(3):
            io_callback(
                lambda v, i=i: seen.append(i), None, grads[i][0, 0], ordered=True
            )
        return loss, grads

    args = chain_arguments()
    found = autotm.jit(step, budget="min")(*args)
    jax.effects_barrier()
    assert seen == [0, 1, 2]
    assert_close(found, chain_step(*args))
