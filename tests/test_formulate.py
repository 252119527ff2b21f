"""The placement problem of a step with loops."""

import dataclasses
import functools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax.formulate import formulate, live_bytes
from autotm_jax.machine import describe
from autotm_jax.profile import Costs
from autotm_jax.profile.costs import Cost
from autotm_jax.solve import (
    JointProgram,
    Problem,
    Schedule,
    SolverOptions,
    Tensor,
    offload_everything,
    replay,
)
from autotm_jax.trace import Program

from .programs import program_of
from .steps import chain_arguments, chain_step


LAYERS, ROWS, WIDTH = 5, 64, 128
MACHINE = describe("h100-sxm")


def layer(x: Any, weight: Any, mask: Any) -> Any:
    """A product, and what is fused into the next: rows are scaled by their sums."""
    hidden = jnp.tanh(x @ weight) * mask
    scale = jnp.exp(-jnp.sum(hidden, axis=1))
    return x + hidden * scale[:, None] @ jnp.ones((WIDTH, WIDTH))


def step(x: Any, weights: Any, table: Any) -> Any:
    """The gradient of a loss of layers in a `scan`, with work before and after."""
    mask = jnp.sort(table, axis=0)

    def loss(weights: Any) -> Any:
        out, _ = jax.lax.scan(lambda x, w: (layer(x, w, mask), None), x, weights)
        return jnp.mean((out @ mask.T) ** 2)

    return jax.grad(loss)(weights)


@functools.cache
def program() -> Program:
    """That step with its loops written out."""
    x, table = jnp.ones((ROWS, WIDTH)), jnp.ones((ROWS, WIDTH))
    weights = jnp.ones((LAYERS, WIDTH, WIDTH))
    return program_of(step, x, weights, table, loops=True)


def costs_of(found: Program, joined: dict[tuple[int, int], float]) -> Costs:
    """Another number of milliseconds for every segment, and for what is made again."""
    segments = tuple(Cost((k + 1) * 1e-3, 64) for k in range(len(found.segments)))
    again = {v: Cost(1e-6 * (v + 1), 32) for v in found.recomputations}
    return Costs(segments, again, joined, "a test", "a test")


@functools.cache
def formulated() -> Problem:
    """Its placement problem."""
    costs = costs_of(program(), {})
    return formulate(program(), costs, MACHINE, float("inf"), 2**40)


def crossing() -> list[Tensor]:
    """The tensors that go from the forward loop to the backward one."""
    return [t for t in formulated().tensors if t.crossing is not None]


def ranges() -> list[tuple[int, int]]:
    """The segments of the forward loop and of the backward one."""
    nest = program().nest
    assert len(nest.ranges) == 2
    return [nest.ranges[i] for i in range(2)]


def test_what_the_backward_loop_reads_of_each_iteration_crosses():
    made, read = ranges()
    assert len(crossing()) >= 2
    for tensor in crossing():
        found = tensor.crossing
        assert found is not None
        assert (found.made, found.read, found.count) == (made, read, LAYERS)
        assert tensor.times == LAYERS
        assert tensor.nbytes == 4 * ROWS * WIDTH  # of one iteration
        assert made[0] <= tensor.touches[0] < made[1]
        used = {*tensor.touches, *tensor.optional}
        assert used <= {*range(*made), *range(*read)}
        assert max(used) >= read[0]
        assert tensor.closed == ()


def test_what_crosses_is_read_by_both_loops_and_nothing_else_crosses():
    places = program().nest.place
    for tensor in formulated().tensors:
        last = max((*tensor.touches, *tensor.optional))
        loops = {places(tensor.value, k) for k in (tensor.touches[0], last)}
        assert (tensor.crossing is not None) == (loops == {0, 1})


def test_a_loop_touches_what_is_outside_of_it_throughout_or_not_at_all():
    spans = ranges()
    outside = [t for t in formulated().tensors if t.closed]
    assert outside
    through = 0
    for tensor in outside:
        assert sorted(tensor.closed) == spans
        assert tensor.times == 1
        assert tensor.crossing is None
        for span in spans:
            inside = set(range(*span)).intersection(tensor.touches)
            assert inside in (set(), set(range(*span)))
            through += bool(inside)
    assert through >= 2  # the mask, in both


def test_an_iteration_counts_as_often_as_it_runs():
    problem, repeats = formulated(), program().repeats
    assert set(repeats) == {1, LAYERS}
    for k, seconds in enumerate(problem.compute):
        in_loop = any(first <= k < end for first, end in ranges())
        assert seconds == pytest.approx((LAYERS if in_loop else 1) * (k + 1) * 1e-3)
    # Workspace is that of one iteration.
    assert set(problem.workspace) == {64}
    assert problem.fastest() == pytest.approx(sum(problem.compute))


def test_what_stays_inside_of_a_loop_is_there_once():
    spans = ranges()
    inside = [
        t for t in formulated().tensors if t.crossing is None and t.times == LAYERS
    ]
    assert inside
    for tensor in inside:
        used = {*tensor.touches, *tensor.optional}
        assert any(used <= set(range(*span)) for span in spans)
        assert tensor.stacked == tensor.nbytes


def test_a_recipe_reads_what_is_at_hand_and_counts_every_iteration():
    problem, found, places = formulated(), program(), program().nest.place
    seen = 0
    for tensor in problem.tensors:
        if tensor.recipe is None:
            continue
        for use, seconds in tensor.recipe.seconds.items():
            here = places(tensor.value, use)
            times = 1 if here is None else LAYERS
            assert seconds == pytest.approx(times * 1e-6 * (tensor.value + 1))
            assert use in {*tensor.touches, *tensor.optional}
            for position in tensor.recipe.roots:
                root = problem.tensors[position]
                assert use in {*root.touches, *root.optional}
                same = places(root.value, use) == here
                assert same or use in root.touches
                seen += not same
            loops = [k for k in ranges() if k[0] <= use < k[1]]
            assert bool(loops) == (found.segments[use].loop is not None)
    assert sum(t.recipe is not None for t in crossing()) >= 1
    assert seen >= 1  # the mask, from outside


def test_a_stack_costs_what_passes_through_memory_for_it():
    bandwidth = MACHINE.device_bandwidth
    copies = {}
    for tensor in crossing():
        assert tensor.crossing is not None
        once = 2 * LAYERS * tensor.nbytes / bandwidth
        copies[tensor.value] = tensor.crossing.seconds / once
    # What a kernel reads is copied out of the stack, too.
    assert sorted(set(copies.values())) == pytest.approx([1.0, 2.0])


def test_what_is_small_and_crosses_is_counted_as_a_stack():
    # The scale of each row: too small to decide about.
    made, read = ranges()
    rows = 4 * ROWS
    assert all(t.nbytes > rows for t in formulated().tensors)
    stacks = [s for s in formulated().small if s[1:] == (made[0], read[1])]
    assert stacks
    assert {nbytes for nbytes, _, _ in stacks} == {LAYERS * rows}


def test_what_crosses_is_not_computed_again_between_the_loops():
    # As if the segment before the backward loop read the same roots: there it would
    # be one iteration's only, at the price of one.
    found = program()
    _, (first, _) = ranges()
    known = [t for t in crossing() if t.recipe is not None]
    value = known[0].value
    body = found.segments[first].body
    between = {(value, use - 1): body for use in (first, *known[0].touches) if use}
    changed = dataclasses.replace(found, joined=between)
    costs = costs_of(found, dict.fromkeys(between, 0.0))
    problem = formulate(changed, costs, MACHINE, float("inf"), 2**40)
    spans = ranges()
    inside = {k for span in spans for k in range(*span)}
    for tensor in problem.tensors:
        if tensor.crossing is not None:
            uses = set(tensor.recipe.seconds) if tensor.recipe is not None else set()
            assert uses | set(tensor.optional) <= inside


def test_everything_kept_takes_a_stack_of_each_that_crosses():
    problem = formulated()
    state = replay(problem, Schedule())
    assert state.faults == ()
    assert {v for v, _, _ in state.stacks} == {
        t.value for t in crossing() if t.touches[-1] >= ranges()[1][0]
    }
    moved = replay(problem, offload_everything(problem))
    assert moved.faults == ()
    assert moved.stacks == ()
    assert moved.device_peak < state.device_peak
    stacks = sum(t.stacked for t in crossing() if t.movable)
    assert moved.host_peak >= stacks


def test_it_can_be_solved():
    problem = formulated()
    most = replay(problem, Schedule()).device_peak
    program = JointProgram(problem)
    options = SolverOptions(time_limit=20.0, gap=1e-3)
    least = program.least_memory(options)
    assert least.objective < 0.7 * most
    limit = (least.objective + most) / 2
    solution = program.fastest(limit, options)
    assert solution.schedule is not None
    bounded = dataclasses.replace(problem, device_limit=limit)
    state = replay(bounded, solution.schedule)
    assert state.faults == ()
    assert state.makespan == pytest.approx(solution.objective, rel=1e-6)


@pytest.mark.parametrize(("milliseconds", "reach"), [(1.0, 3), (4.0, 1)])
def test_what_is_computed_again_reaches_back_unless_that_takes_too_long(
    milliseconds: float, reach: int
):
    """Of few large layers, each may take a twentieth of the step."""
    flat = program_of(chain_step, *chain_arguments(width=256))
    again = {v: Cost(milliseconds * 1e-3, 0) for v in flat.recomputations}
    segments = tuple(Cost(1e-3, 0) for _ in flat.segments)
    costs = Costs(segments, again, {}, "a test", "a test")
    found = formulate(flat, costs, MACHINE, float("inf"), 2**40)
    recipes = [t.recipe for t in found.tensors if t.recipe is not None]
    uses = Counter(use for recipe in recipes for use in recipe.seconds)
    assert max(uses.values()) == reach


def test_what_is_live_is_known_without_any_costs():
    whole = formulated()
    bare = dataclasses.replace(whole, workspace=(0,) * whole.segments)
    assert live_bytes(program()) == replay(bare, Schedule()).device_peak > 0
