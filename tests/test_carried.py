"""What is carried from step to step: the program against all placements."""

import dataclasses
import functools
import random

import numpy as np
import pytest

from autotm_jax.solve import (
    Carried,
    Fetch,
    Formulation,
    JointProgram,
    Problem,
    Recompute,
    Schedule,
    Solution,
    SolverOptions,
    Status,
    Store,
    Tensor,
    offload_everything,
    replay,
)
from autotm_jax.solve.improve import Ways
from autotm_jax.solve.ledger import Ledger

from .brute import Placements, placements
from .problems import KIB, problem, state_problem


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)
PROBLEMS = 48
CHUNKS = 4


@functools.cache
def drawn(seed: int) -> tuple[Problem, Placements]:
    """A problem with at least a few placements, and those."""
    draw = random.Random(seed)
    while True:
        found = state_problem(draw.randrange(10**6))
        sizes = [len(t.touches) + len(t.optional) for t in found.tensors]
        if len(found.tensors) > 2 or max(sizes) > 3:
            continue
        every = placements(found, Formulation.JOINT)
        if 6 <= len(every.seconds) <= 200_000:
            return found, every


def limit_of(seed: int) -> float:
    """A device limit; an eighth of them are below the least that any plan takes."""
    found, every = drawn(seed)
    if seed % 8 == 5:
        return every.least - KIB
    most = replay(found, Schedule()).device_peak
    part = random.Random(seed).choice([0.0, 0.0, 0.25, 0.5])
    return every.least + part * (most - every.least)


@functools.cache
def solved(seed: int) -> Solution:
    return JointProgram(drawn(seed)[0]).fastest(limit_of(seed) + 1, EXACT)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_optimum_is_that_of_all_placements(chunk: int):
    for seed in range(chunk, PROBLEMS, CHUNKS):
        (free, every), limit = drawn(seed), limit_of(seed)
        best, solution = every.best(limit), solved(seed)
        if not np.isfinite(best):
            assert solution.status is Status.INFEASIBLE, seed
            continue
        assert solution.status is Status.OPTIMAL, seed
        assert solution.objective == pytest.approx(best, rel=2e-5), seed
        assert solution.schedule is not None
        bounded = dataclasses.replace(free, device_limit=limit + 1)
        state = replay(bounded, solution.schedule)
        assert state.faults == (), seed
        assert state.makespan == pytest.approx(solution.objective, rel=1e-6), seed


def test_the_random_problems_are_worth_solving():
    binding = lodged = resident = 0
    for seed in range(PROBLEMS):
        (free, every), solution = drawn(seed), solved(seed)
        best = every.best(limit_of(seed))
        binding += np.isfinite(best) and best > every.seconds.min() * (1 + 1e-9)
        if solution.schedule is None:
            continue
        carried = {t.value for t in free.tensors if t.carried is not None}
        fetched = carried & {f.value for f in solution.schedule.fetches}
        lodged += bool(fetched)
        resident += bool(carried - fetched)
    assert binding >= PROBLEMS / 3
    assert lodged >= PROBLEMS / 4
    assert resident >= PROBLEMS / 4


@pytest.mark.parametrize("seed", range(0, PROBLEMS, 2))
def test_the_least_memory_is_that_of_all_placements(seed: int):
    free, every = drawn(seed)
    solution = JointProgram(free).least_memory(EXACT)
    assert solution.objective == pytest.approx(every.least, rel=1e-6, abs=2)
    assert free.floor() <= every.least


@pytest.mark.parametrize("seed", range(12))
def test_every_change_is_counted_as_the_checker_does(seed: int):
    free, draw = state_problem(seed), random.Random(seed)
    ledger = Ledger(free, Schedule())
    for _ in range(12):
        ways = list(Ways(ledger, draw.randrange(len(free.tensors))))
        if ways:
            ledger.change(draw.choice(ways))
        state = replay(free, ledger.schedule())
        assert ledger.seconds() == pytest.approx(state.makespan, rel=1e-12)
        assert np.allclose(ledger.device(), state.device)
        assert ledger.host_peak() == state.host_peak
        assert ledger.faults == len(state.faults)


LEAF = Tensor(7, 40 * KIB, (1, 4), carried=Carried((4, 5), 6))
WHOLE = (Store(7, 5, 6),), (Fetch(7, 0, 1), Fetch(7, 3, 4))


def test_on_the_device_it_is_there_all_the_time():
    state = replay(problem([LEAF]), Schedule())
    assert state.faults == ()
    assert list(state.device) == [40 * KIB] * 6
    assert state.carried == 40 * KIB
    assert state.host_peak == 0


def test_on_the_host_it_comes_and_goes():
    state = replay(problem([LEAF]), Schedule(*WHOLE))
    assert state.faults == ()
    # Segment 4 reads it and makes what takes its place.
    assert [b / KIB for b in state.device] == [40, 40, 0, 40, 80, 40]
    assert set(state.host) == {40 * KIB}
    assert state.carried == 0


DAMAGED = [
    (((), WHOLE[1]), "is not stored once"),
    (((*WHOLE[0], Store(7, 5, 6)), WHOLE[1]), "is not stored once"),
    (((Store(7, 4, 5),), WHOLE[1]), "is stored when what takes its place is not made"),
    ((WHOLE[0], WHOLE[1][1:]), "is on the host when segment 1 uses it"),
    ((WHOLE[0], (Fetch(7, 0, 1), Fetch(7, 1, 4))), "is fetched for 4 outside of its"),
    ((WHOLE[0], (*WHOLE[1], Fetch(7, 2, 4))), "is fetched twice for one segment"),
    ((*WHOLE, (Recompute(7, 4),)), "may not be computed again at 4"),
]


@pytest.mark.parametrize("parts, text", DAMAGED)
def test_each_rule(parts: tuple, text: str):
    assert text in " ".join(replay(problem([LEAF]), Schedule(*parts)).faults)


def test_what_is_not_movable_stays():
    fixed = dataclasses.replace(LEAF, movable=False)
    faults = replay(problem([fixed]), Schedule(*WHOLE)).faults
    assert "moves, but is not movable" in " ".join(faults)
    assert offload_everything(problem([fixed])) == Schedule()


def test_everything_offloaded_is_sound():
    state = replay(problem([LEAF]), offload_everything(problem([LEAF])))
    assert state.faults == ()
    assert state.carried == 0
