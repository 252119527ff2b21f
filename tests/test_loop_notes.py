"""What a plan says about loops that are not seen through."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.report.loops import loop_notes

from .loop_steps import X, layer, weights
from .programs import program_of


WS = weights(4)


def notes_of(step: Callable[..., Any], *args: Any) -> list[str]:
    """The notes on a step, without the paths of its lines."""
    notes = loop_notes(program_of(step, *args, loops=True))
    return [note.replace(f"{__file__}", "here") for note in notes]


def stays(x: Any, ws: Any) -> Any:
    return jax.lax.scan(layer, x, ws)[0]


def unknown(x: Any, ws: Any) -> Any:
    return jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ ws[0] + 1, x)


def cheap(x: Any, ws: Any) -> Any:
    return jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: jnp.sin(c) + 1, x)


def printing(x: Any, ws: Any) -> Any:
    def body(c: Any, w: Any) -> Any:
        jax.debug.print("{}", c[0, 0])
        return jnp.tanh(c @ w), None

    return jax.lax.scan(body, x, ws)[0]


def read_twice(x: Any, ws: Any) -> Any:
    y, hs = jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), jnp.sin(c)), x, ws)
    z, _ = jax.lax.scan(lambda c, hw: (c + hw[0] @ hw[1], None), y, (hs, ws))
    return z, hs


def read_in_another_body(x: Any, ws: Any) -> Any:
    def outer(c: Any, _: Any) -> Any:
        return jax.lax.scan(layer, c, ws)[0], None

    def loss(x: Any) -> Any:
        return (jax.lax.scan(outer, x, None, length=3)[0] ** 2).mean()

    return jax.grad(loss)(x)


@pytest.mark.parametrize(
    ("step", "parts"),
    [
        (stays, []),
        (
            unknown,
            ["the while at here:", "is taken to run 10 times in what is said of sec"],
        ),
        (cheap, ["the while at here:", "as it is: it does nothing that takes much"]),
        (printing, ["the scan at here:", "as it is: it has effects, which happen in"]),
        (
            read_in_another_body,
            ["the scan at here:", "as it is: it makes stacks for the body of another"],
        ),
        (
            read_twice,
            [
                "the loop at here:",
                "reads a stack of another loop that cannot be planned slice by slice: "
                "something else reads them, too",
            ],
        ),
    ],
)
def test_a_loop_that_is_not_seen_through_is_named(
    step: Callable[..., Any], parts: list[str]
):
    notes = notes_of(step, X, WS)
    assert len(notes) == bool(parts)
    assert all(part in note for note in notes for part in parts)


def test_a_plan_shows_them():
    def loss(x: Any, ws: Any) -> Any:
        fixed = unknown(*jax.lax.stop_gradient((x, ws)))
        return (fixed @ stays(x, ws).T).sum()

    plan = autotm.jit(jax.grad(loss, argnums=1), budget="min").plan(X, WS)
    assert "loop" in str(plan) and "is taken to run 10 times" in str(plan)
    assert loop_notes(None) == []
