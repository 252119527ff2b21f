"""Stacks of an emitted loop, and what goes from one iteration to the next."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autotm_jax.emit import emit
from autotm_jax.emit.iteration import Iteration, Stacks, first_of, kept, next_of
from autotm_jax.solve import Fetch, Schedule, Store
from autotm_jax.trace import Loop, Program

from .loop_plans import ahead, crossing, in_the_iteration, moving
from .loop_steps import X
from .test_loop_values import planned, program_of


def loop_of(length: int, start: int = 0, reverse: bool = False) -> Loop:
    """A loop of which only the order of its iterations is of interest."""
    return Loop(0, None, length, reverse, 1, 0, (), (), (), "", start)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_of_iterations(reverse: bool):
    loop = loop_of(3, 5, reverse)
    order = [int(first_of(loop))]
    for _ in range(3):
        order.append(int(next_of(loop, jnp.int32(order[-1]))))
    # After the last there is none: what is fetched for it is not read.
    assert order == ([7, 6, 5, 5] if reverse else [5, 6, 7, 7])


@pytest.mark.parametrize("start", [0, 5])
def test_what_one_loop_leaves_for_another_begins_with_its_first_iteration(start: int):
    stack = jnp.arange(6.0).reshape(3, 2)
    loop = loop_of(3, start)
    for i in range(3):
        found = kept(stack, loop, jnp.int32(start + i))
        np.testing.assert_array_equal(found, stack[i])


def scans(program: Program, schedule: Schedule) -> list[Any]:
    """The scans of an emitted program, in order."""
    avals = [program.values[a].aval for a in program.arguments]
    traced = jax.jit(emit(program, schedule)).trace(*avals)
    return [e for e in traced.jaxpr.eqns if e.primitive.name == "scan"]


def stacked(scan: Any) -> list[tuple[int, ...]]:
    """The shapes of what a scan stacks itself."""
    count = len(scan.params["jaxpr"].jaxpr.outvars)
    carried = [
        inner.aval.shape == outer.aval.shape
        for inner, outer in zip(
            scan.params["jaxpr"].jaxpr.outvars, scan.outvars, strict=True
        )
    ]
    return [scan.outvars[i].aval.shape for i in range(count) if not carried[i]]


def test_device_stacks_are_carried_and_host_stacks_are_results():
    program, problem = planned("layers")
    forward, backward = scans(program, Schedule())
    assert stacked(forward) == stacked(backward) == []
    forward, backward = scans(program, moving(problem, in_the_iteration))
    # Both residuals; the gradients of the weights stay where they are.
    assert stacked(forward) == [(4, *X.shape)] * 2
    assert stacked(backward) == []


def test_what_is_fetched_ahead_is_carried():
    program, problem = planned("layers")
    _, plain = scans(program, moving(problem, in_the_iteration))
    _, found = scans(program, moving(problem, ahead))

    def carried(scan: Any) -> list[Any]:
        return [v.aval.shape for v in scan.outvars]

    assert sorted(carried(found)) == sorted([*carried(plain), X.shape, X.shape])


def test_loops_with_copies_are_not_unrolled():
    program, problem = planned("layers_unrolled_by_two")
    assert [s.params["unroll"] for s in scans(program, Schedule())] == [2, 2]
    schedule = moving(problem, ahead)
    assert [s.params["unroll"] for s in scans(program, schedule)] == [1, 1]


def test_parts_run_their_iterations_only():
    program = program_of("layers", {0: 3})
    found = scans(program, Schedule())
    assert [s.params["length"] for s in found] == [3, 1, 1, 3]
    assert [s.params["reverse"] for s in found] == [False, False, True, True]


def test_a_stack_is_filled_no_earlier_than_its_loop_begins():
    # As a result of a barrier with what the loop starts from.
    program = planned("layers")[0]
    avals = [program.values[a].aval for a in program.arguments]
    eqns = jax.jit(emit(program, Schedule())).trace(*avals).jaxpr.eqns
    made = {v: e for e in eqns for v in e.outvars}
    fills = [
        e
        for e in eqns
        if e.primitive.name == "broadcast_in_dim" and e.outvars[0].aval.shape[0] == 4
    ]
    # Two residuals and the gradients.
    assert len(fills) == 3
    for fill in fills:
        assert made[fill.invars[0]].primitive.name == "optimization_barrier"


def test_slices_are_written_when_they_are_made():
    program, loop = planned("layers")[0], planned("layers")[0].loops[0]
    values = [t.value for t in crossing(planned("layers")[1])]
    stacks = Stacks(program, loop, values, ())
    assert stacks.written == [0, 1] and stacks.returned == []
    buffers = stacks.buffers(lambda scalar: scalar, lambda v: v)
    assert [b.shape for b in buffers] == [(4, *X.shape)] * 2
    iteration = Iteration(stacks, buffers)
    made = {values[0]: X, values[1]: 2 * X}
    iteration.write({values[0]}, made.__getitem__, jnp.int32(2))
    # It is written once, and what is left when the iteration is over.
    made[values[0]] = jnp.zeros_like(X)
    iteration.write({values[0]}, made.__getitem__, jnp.int32(2))
    first, second = iteration.finish(made.__getitem__, jnp.int32(2))
    np.testing.assert_array_equal(first[2], X)
    np.testing.assert_array_equal(second[2], 2 * X)
    assert float(jnp.abs(first).sum()) == pytest.approx(float(jnp.abs(X).sum()))


def test_a_result_that_comes_back_is_written_then():
    program = planned("layers")[0]
    loop = next(loop for loop in program.loops if loop.stacks)
    each = loop.stacks[0].each
    stacks = Stacks(program, loop, (), ())
    iteration = Iteration(stacks, stacks.buffers(lambda scalar: scalar, lambda v: v))
    shape = program.values[each].aval.shape
    made = {each: jnp.ones(shape)}
    iteration.write({each}, made.__getitem__, jnp.int32(0), returning={each})
    made[each] = 2 * made[each]
    (found,) = iteration.finish(made.__getitem__, jnp.int32(0))
    np.testing.assert_array_equal(found[0], made[each])


def test_a_part_writes_where_its_own_stacks_begin():
    program, problem = planned("layers")
    value = next(crossing(problem)).value
    part = dataclasses.replace(program.loops[0], start=2, length=2)
    stacks = Stacks(program, part, [value], ())
    assert stacks.offsets == [2]
    (buffer,) = stacks.buffers(lambda scalar: scalar, lambda v: v)
    iteration = Iteration(stacks, [buffer])
    (found,) = iteration.finish(lambda _: X, jnp.int32(3))
    assert found.shape == (2, *X.shape)
    np.testing.assert_array_equal(found[1], X)


def test_keys_are_results_of_the_scan():
    program = planned("keys_stacked")[0]
    keys = [v.index for v in program.values if str(v.aval.dtype) == "key<fry>"]
    inside = [v for v in keys if program.values[v].loop == 0]
    stacks = Stacks(program, program.loops[0], inside[:1], ())
    assert stacks.written == []
    assert stacks.returned == list(range(len(stacks.each)))


def test_a_stack_that_is_begun_is_taken_over():
    program = program_of("layers", {0: 3})
    first = next(loop for loop in program.loops if loop.stacks)
    second = next(loop for loop in program.loops if loop.stacks and loop is not first)
    begun = next(loop for loop in (first, second) if loop.stacks[0].begun is not None)
    whole = jnp.ones((4, 16, 16))
    stacks = Stacks(program, begun, (), ())
    (found,) = stacks.buffers(lambda scalar: scalar, {begun.stacks[0].begun: whole}.get)
    assert found is whole


def test_host_and_device_copies_of_one_iteration():
    # In the jaxpr of the bodies: to the host in the first, back in the second.
    program, problem = planned("layers")
    value = next(crossing(problem)).value
    schedule = Schedule((Store(value, 1, 2),), (Fetch(value, 3, 3),))
    for scan, space in zip(
        scans(program, schedule),
        (jax.memory.Space.Host, jax.memory.Space.Device),
        strict=True,
    ):
        puts = [
            e
            for e in scan.params["jaxpr"].jaxpr.eqns
            if e.primitive.name == "device_put"
        ]
        assert [e.params["devices"] for e in puts] == [(space,)]
