"""The running sums of a schedule against a replay of it, where there are loops."""

import dataclasses
import random

import numpy as np
import pytest

from autotm_jax.solve import (
    Fetch,
    Problem,
    Recompute,
    Schedule,
    Store,
    offload_everything,
    recompute_everything,
    replay,
)
from autotm_jax.solve.improve import Ways
from autotm_jax.solve.ledger import Choice, Ledger

from .problems import loop_problem


def bounded(seed: int) -> Problem:
    """Loops of up to six segments, four tensors, and limits that bind."""
    free = loop_problem(seed, longest=6, tensors=4)
    limit = 0.7 * replay(free, Schedule()).device_peak
    return dataclasses.replace(free, device_limit=limit)


def check(ledger: Ledger, schedule: Schedule) -> None:
    """The ledger says what a replay of a schedule says."""
    problem = ledger.problem
    free = dataclasses.replace(
        problem, device_limit=float("inf"), host_limit=float("inf")
    )
    state = replay(problem, schedule)
    assert ledger.seconds() == pytest.approx(state.makespan, rel=1e-12)
    assert np.allclose(ledger.device(), state.device)
    assert ledger.host_peak() == state.host_peak
    assert ledger.faults == len(replay(free, schedule).faults)
    assert (ledger.excess() <= 1e-6) == (not state.faults)


def noise(problem: Problem, draw: random.Random) -> dict[int, Choice]:
    """Anything at all for one tensor, sound or not."""
    index = draw.randrange(len(problem.tensors))
    tensor, count = problem.tensors[index], problem.segments
    stores, fetches = [], []
    for _ in range(draw.randint(0, 2)):
        first, end = sorted((draw.randrange(count), draw.randrange(count)))
        stores.append(Store(tensor.value, draw.choice(tensor.touches), end, first))
        done = draw.choice([-1, -1, end, count])
        use = draw.choice([*tensor.touches, end])
        fetches.append(Fetch(tensor.value, first, use, done))
    known = [] if tensor.recipe is None else list(tensor.recipe.seconds)
    again = draw.sample(known, draw.randint(0, len(known)))
    # In a schedule they are sorted.
    lists = sorted(stores), sorted(fetches), sorted(again)
    return {index: Choice(*map(tuple, lists))}


@pytest.mark.parametrize("chunk", range(4))
def test_after_every_change_it_says_what_the_checker_says(chunk: int):
    changed = 0
    for seed in range(chunk, 60, 4):
        problem, draw = bounded(seed), random.Random(seed)
        ledger = Ledger(problem, Schedule())
        for _ in range(12):
            ways = list(Ways(ledger, draw.randrange(len(problem.tensors))))
            if ways:
                ledger.change(draw.choice(ways))
                changed += 1
            check(ledger, ledger.schedule())
        check(Ledger(problem, ledger.schedule()), ledger.schedule())
    assert changed >= 100


def test_it_counts_the_faults_that_the_checker_finds():
    faulty = 0
    for seed in range(60):
        problem, draw = bounded(seed), random.Random(seed)
        ledger = Ledger(problem, Schedule())
        for _ in range(6):
            ledger.change(noise(problem, draw))
            check(ledger, ledger.schedule())
            faulty += ledger.faults > 0
    assert faulty >= 200


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_a_change_taken_back_leaves_no_trace(seed: int):
    problem = bounded(seed)
    for start in (offload_everything(problem), recompute_everything(problem)):
        ledger = Ledger(problem, start)
        before = ledger.seconds(), ledger.excess(), ledger.host_peak()
        for index in range(len(problem.tensors)):
            for changes in Ways(ledger, index):
                present = {i: ledger.choices[i] for i in changes}
                ledger.change(changes)
                ledger.change(present)
                after = ledger.seconds(), ledger.excess(), ledger.host_peak()
                assert after == pytest.approx(before)
        assert ledger.schedule() == start


def test_a_fetch_ahead_and_a_stack_are_counted():
    for seed in range(40):
        problem = bounded(seed)
        for index, tensor in enumerate(problem.tensors):
            crossing = tensor.crossing
            reads = [k for k in tensor.touches if crossing and k >= crossing.read[0]]
            if crossing is None or not reads or not tensor.movable:
                continue
            ledger = Ledger(problem, Schedule())
            stacked = replay(problem, Schedule())
            assert tensor.value in [value for value, _, _ in stacked.stacks]
            last = max(k for k in tensor.touches if k < crossing.made[1])
            store = Store(tensor.value, last, last + 1)
            ahead = Fetch(tensor.value, reads[0], reads[0], crossing.read[1])
            ledger.change({index: Choice((store,), (ahead,))})
            assert ledger.schedule() == Schedule((store,), (ahead,))
            assert ledger.faults == 0
            check(ledger, ledger.schedule())
            # The stack's seconds are gone, and the first slice's are there.
            assert ledger.seconds() > stacked.makespan - crossing.seconds


def test_a_recomputation_and_what_it_reads():
    read = 0
    for seed in range(40):
        problem = bounded(seed)
        for index, tensor in enumerate(problem.tensors):
            if tensor.recipe is None:
                continue
            uses = tuple(sorted(tensor.recipe.seconds))
            ledger = Ledger(problem, Schedule())
            ledger.change({index: Choice(again=uses)})
            again = tuple(Recompute(tensor.value, use) for use in uses)
            check(ledger, Schedule(recomputes=again))
            for root in tensor.recipe.roots:
                assert set(uses) <= set(ledger.reads[root])
                read += 1
    assert read >= 10
