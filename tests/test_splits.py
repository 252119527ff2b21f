"""Pairs of loops cut in two."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax.trace.flat import Flat
from autotm_jax.trace.flatten import flatten
from autotm_jax.trace.pairs import pair_loops
from autotm_jax.trace.splits import paired_loops, split_loops

from .loop_steps import get


def flat_of(name: str) -> Flat:
    """A small step flattened, with its loops paired."""
    step, args = get(name)
    return pair_loops(flatten(jax.jit(step).trace(*args).jaxpr, loops=True))


def cut(name: str, parts: Mapping[int, int]) -> Flat:
    """The same with loops cut."""
    return split_loops(flat_of(name), parts)


def made_once(flat: Flat) -> bool:
    """Whether each value is made in one place."""
    values = [v for e in flat.equations for v in e.outputs]
    counters = {loop.counter for loop in flat.loops}
    values += [v for loop in flat.loops for v in (*loop.entered, *loop.left_with)]
    values += [*flat.arguments, *(i for i, _ in flat.constants), *counters]
    return len(values) == len(set(values))


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("layers", {0: (0, 1)}),
        ("accumulated_gradients", {1: (1, 2)}),
        ("nested", {0: (0, 2)}),
        ("made_by_two", {0: (0, 1, 2)}),
        ("three_in_a_row", {0: (0, 1, 2)}),
        ("hessian_product", {0: (0, 1, 2, 3)}),
        ("read_by_two", {0: (0, 1, 2)}),
        ("back_to_back", {}),
        ("denoising", {}),
    ],
)
def test_which_loops_can_be_cut(name: str, pairs: dict[int, tuple[int, ...]]):
    assert paired_loops(flat_of(name)) == pairs


def keys_and_values(keys_are_returned: bool) -> Any:
    def body(state: Any, w: Any) -> Any:
        x, key = state
        return (jnp.tanh(x @ w), jax.random.fold_in(key, 1)), (jnp.sin(x), key)

    def step(ws: Any, x: Any, key: Any) -> Any:
        (y, _), (sines, keys) = jax.lax.scan(body, (x, key), ws)
        z, _ = jax.lax.scan(lambda c, s: (c + s @ ws[0], None), y, sines)
        return (z, keys) if keys_are_returned else z

    return pair_loops(
        flatten(jax.jit(step).trace(*get("keys_carried")[1]).jaxpr, loops=True)
    )


def test_a_pair_that_returns_a_stack_of_keys_is_not_cut():
    assert paired_loops(keys_and_values(False)) == {0: (0, 1)}
    flat = keys_and_values(True)
    assert flat.loops[0].counter == flat.loops[1].counter
    assert paired_loops(flat) == {}
    assert split_loops(flat, {0: 2}) is flat


@pytest.mark.parametrize("parts", [{}, {0: 0}, {0: 4}, {0: 5}, {0: -1}, {1: 2}, {9: 2}])
def test_no_cut(parts: dict[int, int]):
    flat = flat_of("layers")
    assert split_loops(flat, parts) is flat


def test_iterations_of_both_loops_are_divided():
    flat = cut("layers", {0: 3})
    ranges = [(loop.start, loop.length) for loop in flat.loops]
    assert ranges == [(0, 3), (0, 3), (3, 1), (3, 1)]
    low, low_back, high, high_back = flat.loops
    assert low.counter == low_back.counter
    assert high.counter == high_back.counter
    assert low.counter != high.counter
    assert made_once(flat)
    # The backward loop runs the high iterations first.
    order = list(dict.fromkeys(e.loop for e in flat.equations if e.loop is not None))
    assert order == [0, 2, 3, 1]


def test_what_is_carried_goes_from_part_to_part():
    whole, flat = flat_of("layers"), cut("layers", {0: 3})
    low, low_back, high, high_back = flat.loops
    for first, second, both in (
        (low, high, whole.loops[0]),
        (high_back, low_back, whole.loops[1]),
    ):
        for a, b, c in zip(first.carries, second.carries, both.carries, strict=True):
            assert a.result == b.initial
            assert a.initial == c.initial
            assert b.result == c.result


def test_a_stack_that_is_begun_is_finished():
    whole, flat = flat_of("layers"), cut("layers", {0: 3})
    (stack,) = whole.loops[1].stacks
    (begun,), (finished,) = flat.loops[3].stacks, flat.loops[1].stacks
    assert finished.begun == begun.whole
    assert begun.begun is None
    assert finished.whole == stack.whole
    # It has its full size from the beginning.
    assert flat.avals[begun.whole] == flat.avals[finished.whole]


def test_loops_inside_are_copied():
    flat = cut("nested", {0: 1})
    assert [loop.parent for loop in flat.loops] == [None, 0, None, 2, None, 4, None, 6]
    lengths = [loop.length for loop in flat.loops]
    assert lengths == [1, 2, 1, 2, 2, 2, 2, 2]
    assert [loop.start for loop in flat.loops] == [0, 0, 0, 0, 1, 0, 1, 0]
    assert made_once(flat)


def test_a_pair_inside_a_loop_is_cut_there():
    flat = cut("accumulated_gradients", {1: 1})
    assert [loop.parent for loop in flat.loops] == [None, 0, 0, 0, 0]
    assert [loop.length for loop in flat.loops] == [4, 1, 1, 2, 2]


def test_three_loops_are_cut_together():
    flat = cut("three_in_a_row", {0: 1})
    assert [loop.start for loop in flat.loops] == [0, 0, 0, 1, 1, 1]
    assert len({loop.counter for loop in flat.loops}) == 2
    assert made_once(flat)
