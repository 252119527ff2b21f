"""Copies laid beside segments without a program."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotm_jax.solve import (
    PROGRAMS,
    Fetch,
    Formulation,
    Problem,
    Schedule,
    SolverOptions,
    Store,
    Tensor,
    replay,
)
from autotm_jax.solve.beside import lay_beside
from autotm_jax.solve.one_engine import one_engine
from autotm_jax.solve.tensorgraph import TensorGraphs

from .brute import REACH, placements
from .problems import (
    KIB,
    everything_away,
    hard_problem,
    limited,
    problem,
    random_moves,
    tiny_problem,
)


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)


def seconds_of(problem: Problem, schedule: Schedule) -> float:
    """With one engine, from a schedule that passes the checker."""
    state = replay(problem, schedule)
    assert state.faults == ()
    beside, waits = one_engine(problem, schedule, state)
    return float(np.maximum(state.compute, beside).sum()) + waits


@given(seed=st.integers(0, 10**6), part=st.floats(0.0, 1.0))
def test_it_is_sound_and_never_worse_than_its_start(seed: int, part: float):
    known = limited(random_moves(seed), part)
    start = everything_away(known)
    laid = lay_beside(known, start, REACH, 10.0)
    assert seconds_of(known, laid) <= seconds_of(known, start)
    # What it ends with is where it may begin, too.
    again = lay_beside(known, laid, REACH, 10.0)
    assert seconds_of(known, again) <= seconds_of(known, laid)


@pytest.mark.parametrize("reach", [2, REACH])
@pytest.mark.parametrize("part", [0.2, 0.6])
def test_its_copies_are_those_of_the_program(part: float, reach: int):
    free = dataclasses.replace(hard_problem(30).moved_only, configurations={})
    known = limited(free, part)
    start = everything_away(known)
    laid = lay_beside(known, start, reach, 60.0)
    edges = TensorGraphs(known, reach).edges
    actions = {action for edge in edges for action in edge.actions}
    assert actions.issuperset({*laid.stores, *laid.fetches})
    assert seconds_of(known, laid) < 0.9 * seconds_of(known, start)
    # Some tensors turn out not to be needed away.
    assert len(laid.stores) < len(start.stores)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), part=st.floats(0.0, 1.0))
def test_it_is_a_plan_of_the_program_and_not_below_the_optimum(seed: int, part: float):
    free = tiny_problem(seed)
    found = placements(free, Formulation.ASYNCHRONOUS)
    limit = found.least + part * (float(found.peaks.max()) - found.least) + 1
    known = dataclasses.replace(free, device_limit=limit)
    start = PROGRAMS[Formulation.SYNCHRONOUS](free).fastest(limit, EXACT)
    if start.schedule is None:
        return
    laid = lay_beside(known, start.schedule, REACH, 10.0)
    seconds = seconds_of(known, laid)
    assert found.best(limit) <= seconds * (1 + 1e-9)
    assert seconds <= start.objective * (1 + 1e-9)
    # The program, if it may take no other copies, has it as a plan.
    program = PROGRAMS[Formulation.ASYNCHRONOUS](free)
    copies = {*laid.stores, *laid.fetches, *laid.streams}
    upper = np.array([copies.issuperset(e.actions) for e in program.columns.edges])
    answer = program.boolean.run(limit, EXACT, upper)
    assert answer is not None
    assert answer.objective <= 1e3 * seconds * (1 + 2e-5)


def test_a_small_tensor_that_hides_goes_in_the_place_of_a_large_one():
    # The copies of the large one take longer than what hides them.
    large = Tensor(0, 96 * KIB, (0, 20))
    small = [Tensor(i, 32 * KIB, (3 * i, 20 - 3 * i)) for i in (1, 2, 3)]
    known = problem([large, *small], 21, device_limit=160 * KIB)
    start = Schedule((Store(0, 0, 1),), (Fetch(0, 20, 20),))
    laid = lay_beside(known, start, REACH, 10.0)
    (store,), (fetch,) = laid.stores, laid.fetches
    assert store.value in (1, 2) and fetch.value == store.value
    assert all(end == first + 1 for first, end in (store.window, fetch.window))
    latencies = 2 * known.link.latency
    assert seconds_of(known, laid) == pytest.approx(21e-3 + latencies)


def test_what_fits_stays():
    known = problem([Tensor(0, 32 * KIB, (0, 5))], device_limit=32 * KIB)
    start = everything_away(known)
    assert lay_beside(known, start, REACH, 10.0) == Schedule()


def test_without_time_the_copies_of_the_start_are_laid():
    workspace = [0] * 5 + [16 * KIB] * 2 + [0] * 5
    known = problem([Tensor(0, 32 * KIB, (0, 11))], 12, workspace=workspace)
    known = dataclasses.replace(known, device_limit=40 * KIB)
    start = everything_away(known)
    laid = lay_beside(known, start, REACH, 0.0)
    assert seconds_of(known, laid) < seconds_of(known, start)


def test_the_same_start_ends_the_same():
    known = limited(hard_problem(12).moved_only, 0.4)
    start = everything_away(known)
    one, other = (lay_beside(known, start, REACH, 60.0) for _ in range(2))
    assert one == other
