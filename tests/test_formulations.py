import dataclasses
import functools
import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotm_jax.solve import (
    PROGRAMS,
    Formulation,
    Schedule,
    SolverOptions,
    Status,
    replay,
)

from .brute import Placements, placements
from .problems import KIB, tiny_problem


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)
PROBLEMS = 208
CHUNKS = 16


@functools.cache
def every(seed: int, formulation: Formulation) -> Placements:
    """All placements of a tiny problem."""
    return placements(tiny_problem(seed), formulation)


def limit_of(seed: int, formulation: Formulation) -> float:
    """A device limit that binds where one can: between the least and what all take."""
    found = every(seed, formulation)
    most = float(found.peaks.max())
    part = random.Random(seed).choice([0.0, 0.0, 0.25, 0.5])
    return found.least + part * (most - found.least)


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("formulation", Formulation)
def test_the_optimum_is_that_of_all_placements(formulation: Formulation, chunk: int):
    for seed in range(chunk, PROBLEMS, CHUNKS):
        problem = tiny_problem(seed)
        limit = limit_of(seed, formulation)
        best = every(seed, formulation).best(limit)
        solution = PROGRAMS[formulation](problem).fastest(limit + 1, EXACT)
        assert solution.status is Status.OPTIMAL, seed
        assert solution.objective == pytest.approx(best, rel=2e-5), seed
        assert solution.bound <= best * (1 + 2e-5), seed
        assert solution.schedule is not None
        bounded = dataclasses.replace(problem, device_limit=limit + 1)
        state = replay(bounded, solution.schedule)
        assert state.faults == (), seed
        # Two engines are never slower than one.
        assert state.makespan <= solution.objective * (1 + 2e-5), seed


def test_the_random_problems_are_worth_solving():
    # Most limits bind, and every kind of decision is part of some optimum.
    for formulation in Formulation:
        slower = 0
        for seed in range(PROBLEMS):
            found = every(seed, formulation)
            best = found.best(limit_of(seed, formulation))
            assert np.isfinite(best)
            slower += best > found.seconds.min() * (1 + 1e-9)
        is_static = formulation is Formulation.STATIC
        assert slower >= PROBLEMS / (4 if is_static else 2), formulation
    sizes = [len(every(seed, Formulation.JOINT).seconds) for seed in range(PROBLEMS)]
    assert np.median(sizes) >= 100


def test_every_kind_of_decision_is_made():
    made = {name: 0 for name in ("stores", "fetches", "recomputes", "streams", "picks")}
    beside = at_once = 0
    for seed in range(0, PROBLEMS, 3):
        limit = limit_of(seed, Formulation.JOINT)
        program = PROGRAMS[Formulation.JOINT](tiny_problem(seed))
        schedule = program.fastest(limit + 1, EXACT).schedule or Schedule()
        for name in made:
            made[name] += bool(getattr(schedule, name))
        windows = [c.window for c in (*schedule.stores, *schedule.fetches)]
        beside += any(end > first for first, end in windows)
        at_once += any(end == first for first, end in windows)
    assert min(*made.values(), beside, at_once) >= 4, (made, beside, at_once)


@pytest.mark.parametrize("seed", range(0, PROBLEMS, 8))
@pytest.mark.parametrize("formulation", Formulation)
def test_the_least_memory_is_that_of_all_placements(
    formulation: Formulation, seed: int
):
    program = PROGRAMS[formulation](tiny_problem(seed))
    least = every(seed, formulation).least
    solution = program.least_memory(EXACT)
    assert solution.objective == pytest.approx(least, abs=2)
    assert solution.schedule is not None
    state = replay(program.problem, solution.schedule)
    assert state.faults == ()
    assert state.device_peak <= least + 2
    assert least >= program.problem.floor()
    assert program.least_bound() <= least + 2


@pytest.mark.parametrize("seed", range(3, PROBLEMS, 16))
@pytest.mark.parametrize("formulation", Formulation)
def test_nothing_fits_below_the_least(formulation: Formulation, seed: int):
    program = PROGRAMS[formulation](tiny_problem(seed))
    for limit in (every(seed, formulation).least - KIB // 2, 0):
        solution = program.fastest(limit, EXACT)
        assert solution.status is Status.INFEASIBLE
        assert solution.schedule is None
        assert solution.objective == float("inf")


@pytest.mark.parametrize("seed", range(1, PROBLEMS, 16))
@pytest.mark.parametrize("formulation", Formulation)
def test_the_host_limit_is_kept(formulation: Formulation, seed: int):
    tight = dataclasses.replace(tiny_problem(seed), host_limit=40 * KIB)
    found = placements(tight, formulation)
    limit = found.least + 8 * KIB
    solution = PROGRAMS[formulation](tight).fastest(limit + 1, EXACT)
    assert solution.objective == pytest.approx(found.best(limit), rel=2e-5)
    assert solution.schedule is not None
    assert replay(tight, solution.schedule).host_peak <= 40 * KIB


def seconds_of(formulation: Formulation, seed: int, limit: float) -> float:
    """The optimum's seconds; infinity if nothing fits."""
    return PROGRAMS[formulation](tiny_problem(seed)).fastest(limit, EXACT).objective


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), part=st.floats(-0.1, 1.0))
def test_each_program_is_at_least_as_good_as_the_one_before(seed: int, part: float):
    problem = tiny_problem(seed)
    floor, most = problem.floor(), replay(problem, Schedule()).device_peak
    limit = floor + part * (most - floor)
    order = (
        Formulation.STATIC,
        Formulation.SYNCHRONOUS,
        Formulation.ASYNCHRONOUS,
        Formulation.JOINT,
    )
    found = [seconds_of(formulation, seed, limit) for formulation in order]
    for worse, better in itertools.pairwise(found):
        assert better <= worse * (1 + 2e-5)


@settings(max_examples=30)
@given(
    formulation=st.sampled_from(Formulation),
    seed=st.integers(0, 10**6),
    parts=st.tuples(st.floats(-0.1, 1.0), st.floats(-0.1, 1.0)),
)
def test_more_memory_never_takes_longer(
    formulation: Formulation, seed: int, parts: tuple[float, float]
):
    problem = tiny_problem(seed)
    floor, most = problem.floor(), replay(problem, Schedule()).device_peak
    low, high = (floor + part * (most - floor) for part in sorted(parts))
    slow, fast = (seconds_of(formulation, seed, limit) for limit in (low, high))
    assert fast <= slow * (1 + 2e-5)
