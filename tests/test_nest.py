"""Where loops are among the segments, and what crosses their borders."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax.emit import emit
from autotm_jax.solve import Schedule
from autotm_jax.trace import Program, build_program
from autotm_jax.trace.flatten import flatten
from autotm_jax.trace.nest import Nest
from autotm_jax.trace.pairs import pair_loops

from .loop_steps import STEPS, X, get, layer, weights
from .steps import assert_close
from .test_loop_values import planned


def program_of(name: str) -> Program:
    """One of the small steps as a program."""
    return planned(name)[0]


def built(step: Any, *args: Any, donated: Any = None) -> Program:
    """A step as a program, with its loops written out."""
    given = [False] * len(args) if donated is None else donated
    return build_program(jax.jit(step).trace(*args).jaxpr, given)


def nested() -> Nest:
    """Two outer loops with a loop in each: see the scopes."""
    step, args = get("nested")
    loops = pair_loops(flatten(jax.jit(step).trace(*args).jaxpr, loops=True)).loops
    segments = [None, 0, 1, 0, None, 2, 2, 3, 3, 2, None]
    # By value: made outside of all, and in the body of each loop.
    return Nest(loops, segments, [None, 0, 1, 2, 3])


def test_a_loop_is_a_range_of_segments():
    assert nested().ranges == {0: (1, 4), 1: (2, 3), 2: (5, 10), 3: (7, 9)}


def test_the_outermost_loop_inside_a_scope():
    nest = nested()
    assert [nest.child(None, k) for k in (0, 1, 2, 4, 8)] == [None, 0, 0, None, 2]
    assert [nest.child(0, k) for k in (1, 2, 3)] == [None, 1, None]
    assert nest.child(3, 8) is None


def test_which_bodies_are_inside():
    nest = nested()
    assert nest.is_within(None, 3) and nest.is_within(2, 3) and nest.is_within(3, 3)
    assert not nest.is_within(3, 2) and not nest.is_within(0, 3)
    assert list(nest.inside(None)) == [(1, 4), (5, 10)]
    assert list(nest.inside(2)) == [(7, 9)]
    assert list(nest.inside(3)) == []


@pytest.mark.parametrize(
    ("value", "segment", "place", "touched"),
    [
        (0, 0, None, {0}),
        # From outside it is there for the whole loop,
        (0, 2, None, {1, 2, 3}),
        (0, 8, None, {5, 6, 7, 8, 9}),
        (1, 1, 0, {1}),
        (1, 2, 0, {2}),
        # in the loop it is paired with it is a value of that iteration,
        (1, 5, 2, {5}),
        # and there it is outside of the loop inside.
        (1, 7, 2, {7, 8}),
        (3, 8, 2, {7, 8}),
        (4, 8, 3, {8}),
    ],
)
def test_where_a_value_is_at_hand(
    value: int, segment: int, place: int | None, touched: set[int]
):
    assert nested().place(value, segment) == place
    assert nested().touched(value, segment) == touched


def test_what_crosses():
    nest = nested()
    assert nest.crossing(0, [0, 1, 2, 3]) == []
    assert nest.crossing(1, [1, 3]) == []
    assert nest.crossing(1, [1, 2]) == []
    assert nest.crossing(1, [1, 5]) == [0, 2]
    assert nest.crossing(1, [1, 7, 8]) == [0, 2]


@pytest.mark.parametrize("name", STEPS)
def test_a_segment_before_and_after_every_loop(name: str):
    program = program_of(name)
    scopes = program.nest.scopes
    assert len(scopes) == len(program.segments)
    assert [s.loop for s in program.segments] == list(scopes)
    for loop in program.loops:
        first, end = program.nest.ranges[loop.index]
        assert scopes[first - 1] == scopes[end] == loop.parent
        inside = {loop.index, *(o.index for o in program.loops if o.parent is not None)}
        assert set(scopes[first:end]) <= inside


@pytest.mark.parametrize("name", STEPS)
def test_what_loops_take_and_give_is_there_at_their_borders(name: str):
    program = program_of(name)
    touches = program.touches()
    for loop in program.loops:
        first, end = program.nest.ranges[loop.index]
        for carry in loop.carries:
            if isinstance(carry.initial, int) and carry.initial in touches:
                assert first - 1 in touches[carry.initial]
            assert first in touches[carry.before]
            assert end in touches[carry.result]
            if isinstance(carry.after, int) and carry.after in touches:
                assert end - 1 in touches[carry.after]
        for stack in loop.stacks:
            # It is filled from the first iteration on.
            assert {*range(first, end)} <= {*touches[stack.whole]}


@pytest.mark.parametrize("name", STEPS)
def test_what_is_read_from_outside_is_there_for_the_whole_loop(name: str):
    program = program_of(name)
    touches = program.touches()
    for segment in program.segments:
        for value in segment.body.reads:
            if value in program.resident or segment.loop is None:
                continue
            inner = program.nest.child(
                program.nest.place(value, segment.index), segment.index
            )
            if inner is not None:
                assert {*range(*program.nest.ranges[inner])} <= {*touches[value]}


def test_a_value_dies_where_it_is_read_last():
    # Of what loops hand on, nothing dies before they do.
    for name in ("layers", "nested", "accumulated_gradients"):
        program = program_of(name)
        touches = program.touches()
        for segment in program.segments:
            for value in segment.dying:
                assert touches[value][-1] == segment.index


def test_how_often_a_segment_runs():
    repeats = program_of("accumulated_gradients").repeats
    assert repeats == (1, 4, 12, 4, 12, 12, 4, 1)
    assert program_of("layers").repeats == (1, 4, 1, 4, 4, 1)


def test_the_counter_of_an_iteration_is_at_hand():
    program = program_of("nested")
    counters = {loop.counter for loop in program.loops}
    assert counters <= program.resident
    assert not counters & set(program.touches())


def test_no_update_is_moved_into_a_loop():
    def loss(ws: Any, first: Any, last: Any, x: Any) -> Any:
        y, _ = jax.lax.scan(layer, x @ first, ws)
        return ((y @ last) ** 2).mean()

    def step(ws: Any, first: Any, last: Any, x: Any) -> Any:
        grads = jax.grad(loss, argnums=(0, 1, 2))(ws, first, last, x)
        params = (ws, first, last)
        return [p - 0.1 * g for p, g in zip(params, grads, strict=True)]

    args = (weights(4), *weights(2), X)
    for donated in ([False] * 4, [True] * 3 + [False]):
        program = built(step, *args, donated=donated)
        made = {v: s.index for s in program.segments for v in s.body.writes}
        home = {s: program.segments[s].loop for s in made.values()}
        stacked, of_first, of_last = (made[r] for r in program.results)
        assert home[stacked] is home[of_first] is home[of_last] is None
        backward = program.nest.ranges[1]
        # The last layer is updated before the backward loop, which does not read it.
        assert of_last < backward[0]
        assert backward[1] <= stacked <= of_first
        found = jax.jit(emit(program, Schedule()))(*args)
        assert_close(found, jax.tree.leaves(jax.jit(step)(*args)), 2e-5)


def test_what_a_tail_makes_of_a_loop_follows_it():
    def step(ws: Any, x: Any) -> Any:
        y = jax.lax.scan(layer, x, ws)[0] + 1
        return y, jnp.sin(x)

    program = built(step, weights(4), X)
    made = {v: s.index for s in program.segments for v in s.body.writes}
    (first, end) = program.nest.ranges[0]
    of_loop, of_argument = (made[r] for r in program.results)
    assert of_loop == end
    assert of_argument < first
