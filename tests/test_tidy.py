import dataclasses

import pytest

from autotm_jax.solve import (
    Carried,
    Fetch,
    JointProgram,
    Recipe,
    Recompute,
    Schedule,
    SolverOptions,
    Store,
    Tensor,
    replay,
    tidy,
)

from .problems import limit_between, loop_problem, problem, random_problem


ROOT = Tensor(0, 40, (0, 5), optional=(3,))
OTHER = Tensor(1, 40, (1, 3), recipe=Recipe({3: 1.0}, 0, (0,)))
AWAY = Store(0, 0, 1)


def test_a_fetch_that_nobody_waits_for_is_left_out():
    hand = problem([ROOT, OTHER])
    wanted = Schedule((AWAY,), (Fetch(0, 4, 5),))
    needless = dataclasses.replace(wanted, fetches=(Fetch(0, 2, 3), Fetch(0, 4, 5)))
    assert not replay(hand, needless).faults
    assert tidy(hand, needless) == wanted
    assert tidy(hand, wanted) == wanted


def test_a_fetch_for_a_recomputation_stays():
    hand = problem([ROOT, OTHER])
    fetches = Fetch(0, 2, 3), Fetch(0, 4, 5)
    wanted = Schedule((AWAY,), fetches, (Recompute(1, 3),))
    assert not replay(hand, wanted).faults
    assert tidy(hand, wanted) == wanted


def test_an_early_fetch_for_a_later_reader_stays():
    hand = problem([ROOT, OTHER])
    early = Schedule((AWAY,), (Fetch(0, 2, 3),))
    assert not replay(hand, early).faults
    assert tidy(hand, early) == early


def test_what_was_needed_for_something_needless_goes_with_it():
    middle = Tensor(
        1, 40, (1, 5), optional=(4,), recipe=Recipe({4: 1.0, 5: 1.0}, 0, (0,))
    )
    root = Tensor(0, 40, (0, 5), optional=(4,))
    hand = problem([root, middle])
    both = Recompute(1, 4), Recompute(1, 5)
    needless = Schedule((AWAY,), (Fetch(0, 3, 4), Fetch(0, 5, 5)), both)
    assert not replay(hand, needless).faults
    found = tidy(hand, needless)
    assert found.recomputes == (Recompute(1, 5),)
    assert found.fetches == (Fetch(0, 5, 5),)


def test_a_store_that_nobody_reads_is_left_out_but_not_that_of_the_state():
    hand = problem([ROOT, OTHER])
    assert tidy(hand, Schedule((AWAY,))) == Schedule()
    state = Tensor(0, 40, (2,), carried=Carried((4,), 6))
    hand = problem([state])
    there = Schedule((Store(0, 4, 5),), (Fetch(0, 1, 2),))
    assert not replay(hand, there).faults
    assert tidy(hand, there) == there


@pytest.mark.parametrize("seed", range(24))
def test_a_plan_that_is_tidied_is_as_good(seed: int):
    free = random_problem(seed) if seed % 2 else loop_problem(seed)
    limit = limit_between(free, 0.3)
    options = SolverOptions(time_limit=30.0)
    schedule = JointProgram(free).fastest(limit, options).schedule
    assert schedule is not None
    found = tidy(free, schedule)
    before, after = replay(free, schedule), replay(free, found)
    assert not after.faults
    assert after.makespan <= before.makespan * (1 + 1e-9)
    assert after.device_peak <= before.device_peak
    assert after.host_peak <= before.host_peak
    assert found.copies <= schedule.copies
