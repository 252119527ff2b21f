from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from jax.sharding import NamedSharding, PartitionSpec

from autotm_jax.trace import build_program, flatten, register_flattening
from autotm_jax.trace.flatten import Flat, _rules

from .meshes import mesh
from .programs import program_of, run
from .steps import assert_close


X = jnp.linspace(-1.0, 1.0, 16).reshape(4, 4)


def flat_of(step: Any, *args: Any) -> Flat:
    """A step, flattened."""
    return flatten(jax.jit(step).trace(*args).jaxpr)


def names(flat: Flat) -> list[str]:
    """Its primitives, in order."""
    return [e.eqn.primitive.name for e in flat.equations]


@jax.custom_jvp
def twice(x: Any) -> Any:
    return x * 2


@twice.defjvp
def _twice_jvp(primals: Any, tangents: Any) -> Any:
    return twice(primals[0]), tangents[0] * 5


@jax.custom_vjp
def thrice(x: Any) -> Any:
    return x * 3


thrice.defvjp(lambda x: (x * 3, x), lambda x, g: (g * 7 * x,))


def test_calls_are_written_out():
    step = jax.jit(lambda x: jax.jit(jnp.sin)(jax.jit(jax.jit(jnp.cos))(x)))
    assert names(flat_of(step, X)) == ["cos", "sin"]


def test_custom_rules_are_written_out():
    assert names(flat_of(lambda x: thrice(twice(x)), X)) == ["mul", "mul"]
    assert "custom" not in " ".join(names(flat_of(jax.nn.relu, X)))


@pytest.mark.parametrize("fun", [twice, thrice, lambda x: thrice(twice(x))])
def test_custom_derivatives_are_kept(fun: Any):
    step = jax.value_and_grad(lambda x: jnp.sum(fun(x) ** 2))
    program = program_of(step, X)
    assert_close(run(program, X), jax.tree.leaves(step(X)))


def test_loops_and_branches_stay_whole():
    def step(x: Any) -> Any:
        y, _ = jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=3)
        z = jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c + 1, y)
        return jax.lax.cond(z[0, 0] > 0, jnp.sin, jnp.cos, z)

    found = names(flat_of(step, X))
    for name in ("scan", "while", "cond"):
        assert name in found
    assert "sin" not in found


def test_what_a_checkpoint_computes_again_is_written_out():
    def loss(x: Any) -> Any:
        return jax.checkpoint(lambda y: jnp.sin(y @ y) @ y)(x).sum()

    found = names(flat_of(jax.grad(loss), X))
    # Of the forward pass nothing is wanted; its products are in the backward pass.
    assert "checkpoint" not in found and "remat2" not in found
    assert found.count("cos") == found.count("sin") == 1
    assert found.count("dot_general") == 5


def test_constants_come_with_their_arrays():
    table = np.arange(16, dtype=np.float32).reshape(4, 4)
    device = jnp.ones((4, 4)) * 3

    def inner(x: Any) -> Any:
        return x @ table + device

    flat = flat_of(lambda x: jax.jit(inner)(x) * device + jax.jit(inner)(x), X)
    avals = [flat.avals[index] for index, _ in flat.constants]
    arrays = [np.asarray(array) for _, array in flat.constants]
    assert {a.shape for a in avals} <= {(4, 4)}
    # One of each, however often it is closed over.
    assert sum(np.array_equal(a, device) for a in arrays) == 1
    program = program_of(lambda x: inner(x) * device, X)
    assert_close(run(program, X), [(X @ table + device) * device])


def test_what_nobody_reads_is_dropped():
    def step(x: Any) -> Any:
        jnp.sin(x) @ x
        jax.jit(lambda a: jnp.cos(a))(x)
        return x + 1

    assert names(flat_of(step, X)) == ["add"]


def test_half_of_a_call_is_dropped():
    def step(x: Any) -> Any:
        kept, _ = jax.jit(lambda a: (jnp.sin(a), jnp.cos(a)))(x)
        return kept

    assert names(flat_of(step, X)) == ["sin"]


def test_effects_are_kept_in_order():
    def step(x: Any) -> Any:
        jax.debug.callback(lambda v: None, x[0, 0])
        io_callback(lambda v: None, None, x[0, 0], ordered=True)
        return x + 1

    found = names(flat_of(step, X))
    assert [n for n in found if "callback" in n] == ["debug_callback", "io_callback"]


def test_arguments_come_first():
    flat = flat_of(lambda x, y: y - x, X, X)
    assert flat.arguments == (0, 1)
    assert flat.equations[0].inputs == (1, 0)
    assert flat.results == flat.equations[0].outputs


def test_a_jit_with_shardings_stays_whole():
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    inner = jax.jit(jnp.sin, out_shardings=here)
    (name,) = names(flat_of(lambda x: inner(x), X))
    assert name in ("jit", "pjit")


def test_a_rule_of_ones_own():
    primitive = jax.extend.core.Primitive("grouped_for_a_test")
    primitive.multiple_results = True
    primitive.def_abstract_eval(lambda x, *, jaxpr: [x])
    body = jax.make_jaxpr(jnp.sin)(X)

    def step(x: Any) -> Any:
        return primitive.bind(x, jaxpr=body)[0]

    assert names(flatten(jax.make_jaxpr(step)(X))) == ["grouped_for_a_test"]
    try:
        register_flattening("grouped_for_a_test")(lambda eqn: eqn.params["jaxpr"])
        assert names(flatten(jax.make_jaxpr(step)(X))) == ["sin"]
    finally:
        del _rules["grouped_for_a_test"]


@pytest.mark.parametrize(("devices", "is_kept"), [(1, False), (2, True)])
def test_what_sends_nothing_is_left_out(devices: int, is_kept: bool):
    place = NamedSharding(mesh(data=devices), PartitionSpec("data"))

    def step(x: Any) -> Any:
        return jax.lax.with_sharding_constraint(x * 2, place) + 1

    found = names(flatten(jax.make_jaxpr(step)(jnp.ones(4))))
    assert ("sharding_constraint" in found) == is_kept
    assert found[0] == "mul" and found[-1] == "add"


def test_a_step_is_the_same_program_wherever_it_is():
    def step(x: Any) -> Any:
        return jax.grad(lambda x: jnp.tanh(x @ x).sum() + jnp.zeros(3).sum())(x)

    shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    single = NamedSharding(mesh(data=1), PartitionSpec())
    there = jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=single)
    programs = [
        build_program(jax.jit(step).trace(x).jaxpr, [False]) for x in (shape, there)
    ]
    assert programs[0].signature == programs[1].signature
    assert len({len(p.values) for p in programs}) == 1
