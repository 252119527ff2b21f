"""Which loops are pairs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax.trace import build_program
from autotm_jax.trace.flat import Flat
from autotm_jax.trace.flatten import flatten
from autotm_jax.trace.loops import path_of
from autotm_jax.trace.pairs import pair_loops, read_elsewhere

from .loop_steps import X, get, stacking, weights


WS = weights(4)


def paired(step: Callable[..., Any], *args: Any) -> Flat:
    """A step flattened, with its loops paired."""
    return pair_loops(flatten(jax.jit(step).trace(*args).jaxpr, loops=True))


def of(name: str) -> Flat:
    """The same of one of the small steps."""
    step, args = get(name)
    return paired(step, *args)


def crossing(flat: Flat) -> dict[int, set[int | None]]:
    """By value made in a loop, the loops not around or inside that read it."""
    home = {c.before: loop.index for loop in flat.loops for c in loop.carries}
    home |= {v: loop.parent for loop in flat.loops for v in loop.left_with}
    home |= {v: e.loop for e in flat.equations for v in e.outputs}
    out: dict[int, set[int | None]] = {}
    for equation in flat.equations:
        for value in equation.operands:
            scope = home.get(value)
            if scope is not None and scope not in path_of(flat.loops, equation.loop):
                out.setdefault(value, set()).add(equation.loop)
    return out


def groups(flat: Flat) -> list[list[int]]:
    """Loops that count their iterations together."""
    out: dict[int, list[int]] = {}
    for loop in flat.loops:
        out.setdefault(loop.counter, []).append(loop.index)
    return list(out.values())


def test_the_two_loops_of_a_gradient():
    flat = of("layers")
    forward, backward = flat.loops
    assert (forward.reverse, backward.reverse) == (False, True)
    assert forward.counter == backward.counter
    # The residuals are no stacks any more; the gradients of the weights are.
    assert forward.stacks == ()
    assert len(backward.stacks) == 1
    assert [s.whole for s in backward.slices] == [flat.arguments[0]]
    assert set(map(frozenset, crossing(flat).values())) == {frozenset({1})}
    # The carry of the forward loop is read as it is before the layer.
    assert forward.carries[0].before in crossing(flat)


def read(second: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Stacks something in one loop and hands it to something else."""

    def step(x: Any, ws: Any) -> Any:
        y, sines = jax.lax.scan(stacking, x, ws, **options)
        return second(y, sines, ws)

    return step


def adding(c: Any, s: Any) -> Any:
    return jnp.tanh(c @ (s.T @ s)), None


@pytest.mark.parametrize(
    ("second", "pairs"),
    [
        (lambda y, s, ws: jax.lax.scan(adding, y, s)[0], True),
        (lambda y, s, ws: jax.lax.scan(adding, y, s, reverse=True)[0], True),
        # Returned, too.
        (lambda y, s, ws: (jax.lax.scan(adding, y, s)[0], s), False),
        # Read outside of the loops.
        (lambda y, s, ws: jax.lax.scan(adding, y + s.sum(0), s)[0], False),
        # Not the stack itself.
        (lambda y, s, ws: jax.lax.scan(adding, y, 2 * s)[0], False),
        # Of other lengths.
        (lambda y, s, ws: jax.lax.scan(adding, y, s[:3])[0], False),
        # Read by two loops.
        (
            lambda y, s, ws: jax.lax.scan(adding, jax.lax.scan(adding, y, s)[0], s),
            True,
        ),
        # Of which one only hands on what it reads.
        (
            lambda y, s, ws: (
                jax.lax.scan(adding, y, s)[0],
                jax.lax.scan(lambda c, e: (e, c), y, s),
            ),
            False,
        ),
        # Read whole by the second.
        (
            lambda y, s, ws: jax.lax.scan(
                lambda c, e: (adding(c, e)[0] + s[0], None), y, s
            )[0],
            False,
        ),
        # Carried by the second.
        (
            lambda y, s, ws: jax.lax.scan(
                lambda c, e: ((adding(c[0], e)[0], jnp.sin(c[1])), None), (y, s), s
            )[0],
            False,
        ),
        # In the body of a third.
        (
            lambda y, s, ws: jax.lax.scan(
                lambda c, w: (jax.lax.scan(adding, c @ w, s)[0], None), y, ws
            )[0],
            False,
        ),
    ],
)
def test_what_pairs(second: Callable[..., Any], pairs: bool):
    flat = paired(read(second), X, WS)
    first, *others = flat.loops
    assert (first.stacks == ()) == pairs
    assert any(loop.counter == first.counter for loop in others) == pairs
    assert bool(crossing(flat)) == pairs


def test_pairs_within_a_loop():
    flat = of("accumulated_gradients")
    assert [loop.parent for loop in flat.loops] == [None, 0, 0]
    assert groups(flat) == [[0], [1, 2]]


def test_a_stack_of_stacks_is_paired_outside_only():
    flat = of("nested")
    # The inner loops have different parents: what goes from one to the other is a
    # stack of theirs, and a value of the outer iteration.
    assert groups(flat) == [[0, 2], [1], [3]]
    inner = flat.loops[1]
    assert {s.whole for s in inner.stacks} & set(crossing(flat))


def test_a_loop_that_reads_what_two_others_make_counts_with_both():
    flat = of("made_by_two")
    assert groups(flat) == [[0, 1, 2]]
    assert list(crossing(flat).values()) == [{2}, {2}]


def test_three_loops_in_a_row_have_one_counter():
    flat = of("three_in_a_row")
    assert groups(flat) == [[0, 1, 2]]
    assert sorted(map(sorted, crossing(flat).values())) == [[1], [2]]


def test_what_is_handed_on_crosses_to_both_loops():
    flat = of("handed_on_twice")
    assert list(crossing(flat).values()) == [{1, 2}]
    assert not any(loop.stacks for loop in flat.loops)


def test_one_value_in_two_stacks_goes_to_two_loops():
    def step(x: Any, ws: Any) -> Any:
        def body(c: Any, w: Any) -> Any:
            s = jnp.sin(c)
            return jnp.tanh(c @ w), (s, s)

        y, (one, other) = jax.lax.scan(body, x, ws)
        return jax.lax.scan(adding, jax.lax.scan(adding, y, one)[0], other)[0]

    flat = paired(step, X, WS)
    assert list(crossing(flat).values()) == [{1, 2}]
    assert flat.loops[0].stacks == ()


def test_a_loop_that_only_moves_keeps_its_slices():
    flat = of("only_moves_what_is_made")
    assert [len(loop.slices) for loop in flat.loops] == [1, 1]
    assert {e.loop for e in flat.equations} >= {0, 1}
    assert len(groups(flat)) == 2


def test_constants_are_read_where_their_stack_was():
    flat = of("constants_stacked")
    first, second = flat.loops
    # Of what is stacked there, one is returned.
    assert len(first.stacks) <= 1
    assert first.counter == second.counter
    read = {v for e in flat.equations if e.loop == 1 for v in e.operands}
    assert flat.arguments[1] in read  # `x`, stacked in every iteration


def test_without_loops_nothing_changes():
    flat = flatten(jax.jit(jnp.sin).trace(X).jaxpr, loops=True)
    assert pair_loops(flat) == flat


def test_a_loop_whose_stacks_are_read_in_another_body_stays_whole():
    flat = of("nested")
    (inner,) = read_elsewhere(flat)
    made = {id(loop.eqn): loop for loop in flat.loops}[inner]
    assert made.parent is not None
    step, args = get("nested")
    traced = jax.jit(step).trace(*args).jaxpr
    program = build_program(traced, [False] * len(jax.tree.leaves(args)))
    scans = [e for e in program.equations if e.eqn.primitive.name == "scan"]
    assert len(scans) == 1 and len(program.loops) == len(flat.loops) - 1
    again = {v for v in scans[0].outputs if v in program.recomputations}
    assert again and all(
        scans[0].index in program.recomputations[v].equations for v in again
    )
    assert read_elsewhere(of("layers")) == set()
