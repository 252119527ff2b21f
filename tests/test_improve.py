"""The local search and its ledger, against the checker and against all placements."""

import dataclasses
import random

import pytest

from autotm_jax.solve import (
    JointProgram,
    Problem,
    Schedule,
    SolverOptions,
    anneal,
    descend,
    offload_everything,
)
from autotm_jax.solve.checker import replay
from autotm_jax.solve.improve import Ways
from autotm_jax.solve.ledger import Ledger

from .problems import limit_between, problem, random_problem


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
