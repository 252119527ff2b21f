"""The local search and its ledger, against the checker and against all placements."""

import dataclasses
import random

import pytest

from autotm_jax.solve import (
    Crossing,
    Fetch,
    JointProgram,
    Problem,
    Schedule,
    SolverOptions,
    Store,
    Tensor,
    anneal,
    descend,
    offload_everything,
)
from autotm_jax.solve.checker import replay
from autotm_jax.solve.improve import Ways
from autotm_jax.solve.ledger import Choice, Ledger

from .problems import KIB, limit_between, loop_problem, problem, random_problem


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)


def bounded(seed: int) -> Problem:
    free = random_problem(seed)
    return dataclasses.replace(free, device_limit=limit_between(free, 0.25))


@pytest.mark.parametrize("seed", range(40))
def test_the_ledger_agrees_with_the_checker(seed: int):
    problem, draw = bounded(seed), random.Random(seed)
    ledger = Ledger(problem, Schedule())
    changed = 0
    for _ in range(30):
        index = draw.randrange(len(problem.tensors))
        ways = list(Ways(ledger, index))
        if not ways:
            continue
        ledger.change(draw.choice(ways))
        changed += 1
        state = replay(problem, ledger.schedule())
        assert ledger.seconds() == pytest.approx(state.makespan)
        assert (ledger.excess() <= 1e-6) == (not state.faults)
        assert ledger.score() >= ledger.seconds() * (1 - 1e-12)
    # Some tensors have no gap that could be left, some problems no such tensor.
    pairs = [zip(t.touches, t.touches[1:], strict=False) for t in problem.tensors]
    assert changed >= 3 or not any(b - a > 2 for gaps in pairs for a, b in gaps)


def test_a_change_taken_back_leaves_no_trace():
    problem = bounded(3)
    ledger = Ledger(problem, Schedule())
    before = ledger.seconds(), ledger.excess()
    for index in range(len(problem.tensors)):
        for changes in Ways(ledger, index):
            present = {i: ledger.choices[i] for i in changes}
            ledger.change(changes)
            ledger.change(present)
            assert (ledger.seconds(), ledger.excess()) == pytest.approx(before)
    assert ledger.schedule() == Schedule()


def test_annealing_comes_near_the_optimum():
    best = found = 0
    for seed in range(60):
        problem = bounded(seed)
        optimum = JointProgram(problem).fastest(problem.device_limit, EXACT).objective
        schedule = anneal(problem, Schedule(), 20.0)
        assert schedule is not None, seed
        state = replay(problem, schedule)
        assert not state.faults
        found += 1
        best += state.makespan <= optimum * 1.02
    assert found == 60
    assert best >= 40


def test_annealing_ends_the_same_every_time():
    problem = bounded(8)
    ends = {anneal(problem, Schedule(), 30.0) for _ in range(3)}
    assert len(ends) == 1


def test_a_descent_starts_outside_of_the_limits_and_ends_inside():
    inside = 0
    for seed in range(40):
        problem = bounded(seed)
        for start in (Schedule(), offload_everything(problem)):
            schedule = descend(problem, start, 10.0)
            if schedule is not None:
                assert not replay(problem, schedule).faults
                inside += 1
    assert inside >= 60


def test_nothing_fits_in_nothing():
    tight = problem([], 3, workspace=[50, 50, 50], device_limit=40)
    assert anneal(tight, Schedule(), 1.0) is None
    assert descend(tight, Schedule(), 1.0) is None


def test_annealing_comes_near_the_optimum_where_there_are_loops():
    near = 0
    for seed in range(30):
        free = loop_problem(seed, tensors=4)
        limit = limit_between(free, 0.25)
        problem = dataclasses.replace(free, device_limit=limit)
        optimum = JointProgram(problem).fastest(limit, EXACT).objective
        schedule = anneal(problem, Schedule(), 20.0)
        if schedule is not None:
            state = replay(problem, schedule)
            assert not state.faults
            assert state.makespan >= optimum * (1 - 2e-5)
            near += state.makespan <= optimum * 1.05
    assert near >= 15


def test_a_descent_ends_inside_the_limits_where_there_are_loops():
    inside = 0
    for seed in range(40):
        free = loop_problem(seed, longest=6, tensors=4)
        limit = 0.75 * replay(free, Schedule()).device_peak
        problem = dataclasses.replace(free, device_limit=limit)
        for start in (Schedule(), offload_everything(problem)):
            schedule = descend(problem, start, 10.0)
            if schedule is not None:
                assert not replay(problem, schedule).faults
                inside += 1
    assert inside >= 50


CROSSES = Tensor(
    0, 64 * KIB, (0, 5, 7, 12), times=3, crossing=Crossing((0, 6), (6, 13), 3)
)


def test_every_way_of_what_crosses_is_sound():
    # A long gap in the loop that makes it, and one in the loop that reads it.
    ledger = Ledger(problem([CROSSES], 13), Schedule())
    assert Ways(ledger, 0).gaps == [(5, 7), (7, 12)]
    seen = set()
    for _ in range(3):
        for changes in Ways(ledger, 0):
            ledger.change(changes)
            assert ledger.faults == 0
            seen.add(ledger.choices[0])
    moved = [choice for choice in seen if choice.stores]
    assert len(moved) >= 3
    # Written in the first loop, and fetched for its first use in the other.
    assert {s.after for c in moved for s in c.stores} == {5}
    assert all(c.fetches[0].use == 7 for c in moved)


def test_a_copy_gets_time_for_every_iteration():
    # A copy takes 1.6 ms, and the three of a step as long as five segments of 1 ms.
    ledger = Ledger(problem([CROSSES], 13), Schedule())
    moved = Ways(ledger, 0).bridged(Choice(), {(5, 7): 0.0, (7, 12): 1.1})
    assert moved.fetches == (Fetch(0, 7, 7), Fetch(0, 9, 12))
    assert moved.stores == (Store(0, 5, 6),)
