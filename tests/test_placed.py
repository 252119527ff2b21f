"""Steps whose kernels read both memories: in one place for life, or under a plan."""

import dataclasses
import itertools

import pytest

from autotm_jax.simulate import all_fast, all_slow, placed, placements, planned
from autotm_jax.solve import (
    PROGRAMS,
    Configuration,
    Fetch,
    Formulation,
    Link,
    Problem,
    Schedule,
    SolverOptions,
    Store,
    Stream,
    replay,
)

from .two_memories import ROUND, chain, step


def test_a_chain_by_hand():
    # Reads 100, 200 and 300 bytes, and writes them.
    found, kernels = chain([100, 200, 300])
    fast = all_fast(found, kernels, ROUND)
    assert fast.seconds == 600 / 100 + 600 / 50
    assert (fast.fast_bytes, fast.fast_read) == (500, 1.0)
    slow = all_slow(found, kernels, ROUND)
    assert slow.seconds == 600 / 20 + 600 / 10
    assert (slow.fast_bytes, slow.fast_read) == (0, 0.0)
    mixed = placed("mixed", found, kernels, ROUND, {1})
    assert mixed.seconds == 400 / 100 + 400 / 50 + 200 / 20 + 200 / 10
    assert (mixed.fast_bytes, mixed.fast_read) == (300, pytest.approx(2 / 3))


@pytest.mark.parametrize("seed", range(20))
def test_more_in_fast_memory_is_never_slower(seed: int):
    found, kernels = step(seed)
    chosen = [placed("", found, kernels, ROUND, range(n)) for n in range(9)]
    for faster, slower in itertools.pairwise(chosen):
        assert faster.seconds <= slower.seconds + 1e-9
        assert faster.fast_read >= slower.fast_read
    assert chosen[0].seconds == all_fast(found, kernels, ROUND).seconds
    everything = range(len(found.tensors))
    last = placed("", found, kernels, ROUND, everything)
    assert last.seconds == all_slow(found, kernels, ROUND).seconds


def _posed(seed: int) -> tuple[Problem, list]:
    found, kernels = step(seed)
    problem = dataclasses.replace(
        found,
        compute=tuple(kernel.time(ROUND) for kernel in kernels),
        link=Link(ROUND.out, ROUND.into, float("inf"), 0.25),
        configurations={
            k: tuple(
                Configuration(
                    slow, kernel.time(ROUND, slow) - kernel.time(ROUND), 0, part
                )
                for part, group in enumerate(kernel.groups(ROUND))
                for slow in placements(group, 64)
            )
            for k, kernel in enumerate(kernels)
        },
    )
    return problem, kernels


@pytest.mark.parametrize("formulation", [Formulation.STATIC, Formulation.SYNCHRONOUS])
@pytest.mark.parametrize("seed", range(12))
def test_a_plan_takes_what_the_checker_says(seed: int, formulation: Formulation):
    problem, kernels = _posed(seed)
    peak = replay(problem, Schedule()).device_peak
    limit = 0.6 * peak
    program = PROGRAMS[formulation](problem)
    found = program.fastest(limit, SolverOptions(20.0, 1e-5)).schedule
    assert found is not None
    problem = dataclasses.replace(problem, device_limit=limit)
    outcome = planned("plan", problem, kernels, ROUND, found)
    assert outcome.note == ""
    assert outcome.seconds == pytest.approx(replay(problem, found).makespan)
    assert outcome.fast_bytes <= limit + 1
    fast = all_fast(problem, kernels, ROUND).seconds
    assert fast <= outcome.seconds + 1e-9
    slow = all_slow(problem, kernels, ROUND).seconds
    assert outcome.seconds <= slow * (1 + 1e-4)


def test_a_plan_by_hand():
    # The first tensor is made in fast memory, leaves, and is read where it is then; the
    # second is fetched for the last segment.
    found, kernels = chain([100, 200])
    known = {
        1: (Configuration(frozenset({0}), 100 / 20 - 100 / 100, 0, 0),),
        2: (Configuration(frozenset({1}), 200 / 20 - 200 / 100, 0, 0),),
    }
    link = Link(ROUND.out, ROUND.into, float("inf"), 0.0)
    found = dataclasses.replace(found, configurations=known, link=link)
    schedule = Schedule(
        (Store(0, 0, 1), Store(1, 1, 2)), (Fetch(1, 2, 2),), streams=(Stream(0, 1),)
    )
    outcome = planned("plan", found, kernels, ROUND, schedule)
    assert (outcome.out, outcome.into) == (300, 200)
    kernels_take = 100 / 50 + (100 / 20 + 200 / 50) + 200 / 100
    assert outcome.seconds == kernels_take + 300 / 10 + 200 / 25
    assert outcome.fast_read == pytest.approx(1 - 100 / 600)


def test_a_plan_that_breaks_a_rule_says_so():
    found, kernels = chain([100, 200])
    found = dataclasses.replace(found, device_limit=50.0)
    outcome = planned("plan", found, kernels, ROUND, Schedule())
    assert outcome.note.startswith("Segment 1 needs 300 device bytes")
