from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax.trace import Fragment, Order, Program, build_program, evaluate
from autotm_jax.trace.updates import updates

from .programs import program_of, run
from .steps import assert_close, chain, chain_arguments


WEIGHTS = jnp.linspace(-1, 1, 32 * 32).reshape(32, 32)
BATCH = jnp.linspace(0, 1, 8 * 32).reshape(8, 32)


def sgd(x: Any, weights: Any) -> Any:
    """JAX traces the gradient of the weights before that of what they multiply."""
    value, grads = jax.value_and_grad(chain, argnums=1)(x, weights)
    return [w - 0.1 * g for w, g in zip(weights, grads, strict=True)], value


def sgd_program() -> Program:
    traced = jax.jit(sgd).trace(*chain_arguments(layers=4))
    donated = [False, True, True, True, True]
    return build_program(traced.jaxpr, donated, order=Order.AS_TRACED)


def needed(program: Program, segment: int, result: int) -> set[str]:
    """The primitives that a result of a segment is made by, and what they need."""
    body = program.segments[segment].body
    avals = [program.values[v].aval for v in body.reads]

    def alone(*arrays: Any) -> Any:
        there = dict(zip(body.reads, arrays, strict=True))
        return evaluate(program, body, there.__getitem__)[result]

    jaxpr = jax.make_jaxpr(alone)(*avals).jaxpr
    wanted, found = set(jaxpr.outvars), set[str]()
    for eqn in reversed(jaxpr.eqns):
        if wanted.intersection(eqn.outvars):
            found.add(eqn.primitive.name)
            wanted.update(v for v in eqn.invars if isinstance(v, type(eqn.outvars[0])))
    return found


def test_a_parameter_is_overwritten_after_all_kernels_that_read_it():
    program, (x, _) = sgd_program(), chain_arguments(layers=4)
    found = {
        (s.index, u.argument): u
        for s in program.segments
        for u in updates(program, s.body)
    }
    # Nobody wants the gradient of what the first layer reads.
    assert {a for _, a in found} == {*program.arguments[2:]}
    replaced = {a: r for r, a in program.aliases}
    for (segment, argument), update in found.items():
        made = {v for e in update.readers for v in program.equations[e].outputs}
        assert replaced[argument] in made
        (awaited,) = update.awaited
        assert program.values[awaited].aval.shape == x.shape
        # The gradient is an operand: the product is the one that is awaited.
        assert "dot_general" in needed(program, segment, replaced[argument])


def test_the_values_stay():
    program, args = sgd_program(), chain_arguments(layers=4)
    found = jax.jit(lambda *a: run(program, *a))(*args)
    assert_close(found, jax.tree.leaves(jax.jit(sgd)(*args)))


def averaged(x: Any, w: Any, mean: Any) -> Any:
    """What takes the place of an argument is read in the same segment."""
    y = jnp.sin(x @ w)
    new = w - 0.1
    return y @ y.T, new, 0.9 * mean + 0.1 * new


def cast(x: Any, w: Any) -> Any:
    """A product and the update read the same copy of the argument."""
    small = w.astype(jnp.bfloat16)
    return x.astype(jnp.bfloat16) @ small, 0.9 * small.astype(w.dtype)


def normed(x: Any, w: Any) -> Any:
    """A reduction reads the argument."""
    return jnp.sin(x), w - 0.1, (w * w).sum()


def scaled(x: Any, w: Any) -> Any:
    """Nothing but fused work reads the argument."""
    return x @ x.T, w - 0.1, jnp.sin(w)


def followed(x: Any, w: Any) -> Any:
    """The product is of what has taken the argument's place."""
    new = w - 0.1
    return x @ new, new


def crossed(x: Any, v: Any, w: Any) -> Any:
    """Each argument is read by a product of what takes the place of the other."""
    new_v, new_w = v - 0.1, w - 0.1
    return (x @ w) @ new_v, (x @ v) @ new_w, new_v, new_w


def printed(x: Any, w: Any) -> Any:
    """What is seen of it is in order."""
    new = w - 0.1
    jax.debug.print("new {}", new[0, 0])
    return x @ w, new


@pytest.mark.parametrize(
    ("step", "donated", "waits"),
    [
        (averaged, (1, 2), True),
        (averaged, (), False),
        (cast, (1,), False),
        (normed, (1,), True),
        (scaled, (1,), False),
        (followed, (1,), False),
        (crossed, (1, 2), False),
        (printed, (1,), False),
    ],
)
def test_what_waits(step: Callable[..., Any], donated: tuple[int, ...], waits: bool):
    count = step.__code__.co_argcount
    args = (BATCH, WEIGHTS, WEIGHTS.T)[:count]
    program = program_of(step, *args, donate_argnums=donated)
    everything = tuple(range(len(program.equations)))
    results = tuple(v for v in program.results if isinstance(v, int))
    whole = Fragment(everything, tuple(program.arguments), results, "")
    assert bool(updates(program, whole)) == waits

    def run(*arrays: Any) -> list[Any]:
        there = dict(zip(program.arguments, arrays, strict=True))
        done = evaluate(program, whole, there.__getitem__)
        return [done[v] for v in results]

    assert_close(jax.jit(run)(*args), jax.tree.leaves(jax.jit(step)(*args)))
