"""Loops of a flattened step: which are written out, and what is alive of them."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.xla_metadata import set_xla_metadata

import autotm_jax as autotm
from autotm_jax import AutoTMWarning, compat
from autotm_jax.trace.flat import Flat
from autotm_jax.trace.flatten import flatten
from autotm_jax.trace.loops import path_of, repeats, slicing, why_whole

from .loop_steps import X, draw, get, layer, weights
from .steps import assert_close


WS = weights(4)


def flat_of(step: Callable[..., Any], *args: Any) -> Flat:
    """A step flattened, with its loops."""
    return flatten(jax.jit(step).trace(*args).jaxpr, loops=True)


def names_of(flat: Flat, loop: int | None) -> list[str]:
    """The primitives in the body of a loop."""
    return [e.eqn.primitive.name for e in flat.equations if e.loop == loop]


def last_equation(step: Callable[..., Any], *args: Any) -> Any:
    """The last equation of a step."""
    return jax.make_jaxpr(step)(*args).jaxpr.eqns[-1]


def test_a_scan_is_written_out_once():
    flat = flat_of(lambda x, ws: jax.lax.scan(layer, x, ws)[0], X, WS)
    (loop,) = flat.loops
    assert (loop.index, loop.parent, loop.length, loop.reverse) == (0, None, 4, False)
    assert names_of(flat, 0).count("dot_general") == 1
    assert "scan" not in names_of(flat, None)
    (carry,) = loop.carries
    assert carry.initial == flat.arguments[0]
    assert flat.results == (carry.result,)
    (piece,) = loop.slices
    assert piece.whole == flat.arguments[1]
    assert flat.avals[piece.each].shape == (16, 16)
    assert loop.source.startswith(f"{__file__}:")
    # Nothing in its body seems to come from this package.
    lines = [compat.source_line(e.eqn) for e in flat.equations if e.loop == 0]
    assert loop.source in lines
    assert not any("autotm_jax" in line.split("tests")[-1] for line in lines)


def test_loops_are_written_out_only_if_that_is_asked_for():
    traced = jax.jit(lambda x, ws: jax.lax.scan(layer, x, ws)[0]).trace(X, WS)
    flat = flatten(traced.jaxpr)
    assert flat.loops == ()
    assert names_of(flat, None) == ["scan"]


def printing(x: Any, w: Any) -> Any:
    jax.debug.print("{}", x[0, 0])
    return layer(x, w)


def marked(x: Any, ws: Any) -> Any:
    with set_xla_metadata(a="b"):
        return jax.lax.scan(layer, x, ws)[0]


@pytest.mark.parametrize(
    ("step", "length", "reason"),
    [
        (lambda x, ws: jax.lax.scan(layer, x, ws)[0], 4, ""),
        (lambda x, ws: jax.lax.scan(layer, x, ws)[0], 2, ""),
        (lambda x, ws: jax.lax.scan(layer, x, ws)[0], 1, "runs less than twice"),
        (lambda x, ws: jax.lax.scan(layer, x, ws)[0], 0, "runs less than twice"),
        (
            lambda x, ws: jax.lax.scan(printing, x, ws)[0],
            4,
            "has effects, which happen in their order",
        ),
        (marked, 4, "asks for more than a loop"),
    ],
)
def test_which_loops_stay_whole(step: Callable[..., Any], length: int, reason: str):
    assert why_whole(last_equation(step, X, WS[:length])) == reason
    flat = flat_of(step, X, WS[:length])
    assert len(flat.loops) == (not reason)
    assert ("scan" in names_of(flat, None)) == bool(reason)


def test_a_scan_whose_values_the_user_moves_stays_whole():
    policies = jax.checkpoint_policies
    policy = policies.offload_dot_with_no_batch_dims("device", "pinned_host")

    def loss(x: Any, ws: Any) -> Any:
        return jax.lax.scan(jax.checkpoint(layer, policy=policy), x, ws)[0].sum()

    flat = flat_of(jax.grad(loss), X, WS)
    assert flat.loops == ()
    scans = [e.eqn for e in flat.equations if e.eqn.primitive.name == "scan"]
    assert {why_whole(eqn) for eqn in scans} == {"reads or makes values on the host"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutoTMWarning)
        step = autotm.jit(jax.value_and_grad(loss), budget="min")
        assert_close(step(X, WS), jax.value_and_grad(loss)(X, WS))


def test_a_while_is_written_out_once():
    flat = flat_of(*_spread(get("sampling")))
    (loop,) = flat.loops
    assert loop.condition is not None
    assert loop.constants == (flat.arguments[2],)
    assert [c.result for c in loop.carries] == list(flat.results)
    assert loop.slices == loop.stacks == ()
    assert names_of(flat, 0).count("dot_general") == 5
    assert "while" not in names_of(flat, None)


def test_what_a_condition_reads_is_alive():
    step, args = get("sampling")
    # Only the number of iterations is wanted, and the condition reads that alone.
    flat = flat_of(lambda *args: step(*args)[0], *args)
    (loop,) = flat.loops
    assert len(loop.carries) == 2
    assert flat_of(lambda *args: step(*args) and args[0], *args).loops == ()


def cheap(x: Any) -> Any:
    return jax.lax.while_loop(lambda c: c.max() < 9, lambda c: jnp.sin(c) + c, x)


def with_a_heavy_condition(x: Any) -> Any:
    return jax.lax.while_loop(lambda c: (c @ c.T).max() < 9, lambda c: c @ WS[0], x)


def while_printing(x: Any) -> Any:
    def body(c: Any) -> Any:
        jax.debug.print("{}", c[0, 0])
        return c @ WS[0]

    return jax.lax.while_loop(lambda c: c.max() < 9, body, x)


def of_a_batch(x: Any) -> Any:
    def one(row: Any) -> Any:
        return jax.lax.while_loop(lambda c: c.max() < 9, lambda c: c @ WS[0] + 1, row)

    return jax.vmap(one)(x)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (of_a_batch, "ends at another time for each of a batch"),
        (cheap, "does nothing that takes much memory"),
        (with_a_heavy_condition, "has a condition that is not cheap"),
        (while_printing, "has effects, which happen in their order"),
    ],
)
def test_which_whiles_stay_whole(step: Callable[..., Any], reason: str):
    assert why_whole(last_equation(step, X)) == reason
    flat = flat_of(step, X)
    assert flat.loops == ()
    assert "while" in names_of(flat, None)


def _spread(made: Any) -> Any:
    step, args = made
    return step, *args


def test_loops_that_compute_nothing_leave_all_whole():
    def step(x: Any, ws: Any) -> Any:
        y, _ = jax.lax.scan(layer, x, ws)
        return jax.lax.scan(lambda c, _: ((c[1], c[0]), None), (x, y), None, 3)[0]

    flat = flat_of(step, X, WS)
    assert flat.loops == ()
    assert names_of(flat, None).count("scan") == 2


def test_a_loop_inside_another_has_it_as_its_parent():
    flat = flat_of(*_spread(get("nested")))
    assert [loop.parent for loop in flat.loops] == [None, 0, None, 2]
    assert path_of(flat.loops, 3) == (2, 3)
    assert path_of(flat.loops, None) == ()
    assert [repeats(flat.loops, i) for i in (None, 0, 1)] == [1, 3, 6]
    # Equations of a loop stand together, those of loops inside it among them.
    scopes = [e.loop for e in flat.equations]
    for loop in flat.loops:
        inside = [loop.index in path_of(flat.loops, s) for s in scopes]
        first, count = inside.index(True), sum(inside)
        assert all(inside[first : first + count])


def test_the_last_iteration_is_the_first_of_a_loop_in_reverse():
    flat = flat_of(lambda x, ws: jax.lax.scan(layer, x, ws, reverse=True)[0], X, WS)
    assert flat.loops[0].reverse
    assert (flat.loops[0].start, flat.loops[0].length) == (0, 4)


def test_carries_and_stacks_that_nobody_reads_are_gone():
    def body(c: Any, w: Any) -> Any:
        x, unread = c
        return (jnp.tanh(x @ w), jnp.cos(unread)), (jnp.sin(x), jnp.exp(x))

    def step(x: Any, ws: Any) -> Any:
        (y, _), (sines, _) = jax.lax.scan(body, (x, x), ws)
        return y, sines

    flat = flat_of(step, X, WS)
    (loop,) = flat.loops
    assert len(loop.carries) == len(loop.stacks) == 1
    assert {"cos", "exp"}.isdisjoint(names_of(flat, 0))
    assert "sin" in names_of(flat, 0)


def test_a_carry_that_only_the_next_iteration_reads_lives():
    def body(c: Any, w: Any) -> Any:
        x, scale = c
        return (jnp.tanh(x @ w) * scale, jnp.cos(scale)), None

    flat = flat_of(lambda x, ws: jax.lax.scan(body, (x, x), ws)[0][0], X, WS)
    assert len(flat.loops[0].carries) == 2
    assert "cos" in names_of(flat, 0)


def test_two_carries_that_only_each_other_reads_are_gone():
    def body(c: Any, w: Any) -> Any:
        x, a, b = c
        return (jnp.tanh(x @ w), jnp.cos(b), jnp.exp(a)), None

    flat = flat_of(lambda x, ws: jax.lax.scan(body, (x, x, x), ws)[0][0], X, WS)
    assert len(flat.loops[0].carries) == 1
    assert {"cos", "exp"}.isdisjoint(names_of(flat, 0))


def test_a_loop_that_nobody_reads_is_gone():
    def step(x: Any, ws: Any) -> Any:
        jax.lax.scan(layer, x, ws)
        return jax.lax.scan(lambda c, w: (jnp.sin(c @ w), None), x, ws)[0]

    (loop,) = flat_of(step, X, WS).loops
    assert loop.index == 0


def test_what_is_replaced_in_a_loop():
    flat = flat_of(lambda x, ws: jax.lax.scan(layer, x, ws), X, WS)
    (loop,) = flat.loops
    (carry,) = loop.carries
    by = {carry.initial: 100, carry.after: 101, loop.counter: 102, carry.before: 103}
    (found,) = loop.substituted(by).carries
    assert (found.initial, found.after) == (100, 101)
    # What the loop itself makes keeps its number.
    assert (found.before, found.result) == (carry.before, carry.result)
    assert loop.substituted(by).counter == 102
    assert loop.substituted({}) == loop


def test_the_slice_of_an_iteration():
    stack = draw(3, 5, 2, 3)
    slice_of = jax.jit(jax.extend.core.jaxpr_as_fun(slicing(stack)))
    for i in range(5):
        (found,) = slice_of(stack, jnp.int32(i))
        assert (found == stack[i]).all()
