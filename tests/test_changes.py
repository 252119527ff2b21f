import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.candidate import Candidate
from autotm_jax.changes import changes_of
from autotm_jax.formulate import formulate
from autotm_jax.machine import describe
from autotm_jax.profile import Changes, estimate_costs
from autotm_jax.solve import (
    Fetch,
    Recompute,
    Schedule,
    SolverOptions,
    Store,
    Tensor,
    offload_everything,
)
from autotm_jax.state import carried_leaves
from autotm_jax.trace import build_program

from .programs import program_of


W = jax.ShapeDtypeStruct((64, 64), jnp.float32)


def step(x: Any, w: Any) -> Any:
    """What is made first is read last."""
    first = x @ w
    for _ in range(5):
        x = jnp.tanh(x @ w.T)
    return first @ x


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    """The step, to be placed on a CPU."""
    program = program_of(step, W, W)
    return Candidate(program, autotm.target(), 2**40, SolverOptions())


def away(candidate: Candidate) -> tuple[Tensor, int]:
    """A tensor that is wanted again much later, and by which segment."""
    for tensor in candidate.problem.tensors:
        for a, b in zip(tensor.touches, tensor.touches[1:], strict=False):
            if a == tensor.touches[0] and b - a > 2 and tensor.recipe is not None:
                if b in tensor.recipe.seconds:
                    return tensor, b
    raise AssertionError("There is no such tensor.")


def test_nothing_planned_changes_nothing(candidate: Candidate):
    found = changes_of(candidate.program, candidate.problem, Schedule())
    assert found == Changes({}, {}, {}, {}, {}, copies=frozenset())


def test_what_is_stored_right_after_it_is_made(candidate: Candidate):
    tensor, use = away(candidate)
    value, made = tensor.value, tensor.touches[0]
    fetch = Fetch(value, use - 1, use)
    moved = Schedule((Store(value, made, made + 2),), (fetch,))
    found = changes_of(candidate.program, candidate.problem, moved)
    stored, rest = {made: [value]}, ({}, {}, {made, use})
    assert found == Changes({}, {}, stored, {value: use}, {}, *rest)
    late = Store(value, made, made + 2, start=made + 2)
    waiting = dataclasses.replace(moved, stores=(late,))
    assert not changes_of(candidate.program, candidate.problem, waiting).stored


def test_what_is_computed_again_before_anybody_reads_it(candidate: Candidate):
    tensor, use = away(candidate)
    value, made = tensor.value, tensor.touches[0]
    again = Schedule(recomputes=(Recompute(value, use),))
    found = changes_of(candidate.program, candidate.problem, again)
    assert found.dropped == {made: [value]}
    assert found.back == {value: use}
    is_joined = (value, use) in candidate.program.joined
    assert found.again == ({use: [value]} if is_joined else {})
    assert found.apart == ({} if is_joined else {value: (value,)})


def test_what_leaves_after_it_was_read_and_comes_back(candidate: Candidate):
    tensor, use = away(candidate)
    value, (made, *_) = tensor.value, tensor.touches
    before = max(k for k in tensor.touches if k < use)
    again = Schedule(recomputes=(Recompute(value, use),))
    found = changes_of(candidate.program, candidate.problem, again)
    assert found.gone == ({} if before == made else {before: {value}})


def test_of_a_state_on_the_host_what_it_reads_and_makes_comes_and_goes():
    def update(state: Any, x: Any) -> Any:
        return [leaf - 0.1 * (x @ leaf) for leaf in state]

    traced = jax.jit(update, donate_argnums=0).trace([W, W], W)
    carried = carried_leaves(traced.args_info, traced.out_info)
    program = build_program(traced.jaxpr, [True, True, False], carried=carried)
    costs, machine = estimate_costs(program, autotm.target()), describe("h100-sxm")
    problem = formulate(program, costs, machine, 2**40, 2**40, carries=True)
    first, second = program.carried.items()
    made = {v: s.index for s in program.segments for v in s.body.writes}
    read = {v: s.index for s in program.segments for v in s.body.reads}
    away, (leaf, result) = offload_everything(problem), second
    found = changes_of(program, problem, away)
    assert found.away == {*first, *second}
    assert result in found.stored[made[result]]
    assert leaf in found.gone[read[leaf]]
    # One of them stays on the device, and is overwritten there.
    fetches = tuple(f for f in away.fetches if f.value != leaf)
    stores = tuple(s for s in away.stores if s.value != leaf)
    assert changes_of(program, problem, Schedule(stores, fetches)).away == {*first}
