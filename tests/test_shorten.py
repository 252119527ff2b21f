import dataclasses

import pytest

from autotm_jax.solve import (
    Fetch,
    JointProgram,
    Link,
    Schedule,
    SolverOptions,
    Store,
    Tensor,
    replay,
)
from autotm_jax.solve.shorten import shorten

from .problems import limit_between, loop_problem, problem, random_problem


# A copy takes half of a segment.
LINK = Link(40.0, 40.0, 80.0, 0.0)
TENSOR = Tensor(0, 20, (0, 10))


def hand(tensor: Tensor = TENSOR, link: Link = LINK):
    """Twelve segments of one second."""
    found = problem([tensor], 12)
    return dataclasses.replace(found, compute=(1.0,) * 12, link=link)


def test_windows_are_as_long_as_copies_need():
    long = Schedule((Store(0, 0, 5),), (Fetch(0, 5, 10),))
    assert not replay(hand(), long).faults
    found = shorten(hand(), long)
    assert found == Schedule((Store(0, 0, 2),), (Fetch(0, 9, 10),))
    assert shorten(hand(), found) == found


def test_longer_where_the_link_is_slow():
    slow = dataclasses.replace(LINK, h2d=10.0)
    long = Schedule((Store(0, 0, 5),), (Fetch(0, 5, 10),))
    assert shorten(hand(link=slow), long).fetches == (Fetch(0, 7, 10),)


def test_what_everything_waits_for_stays_so():
    waiting = Schedule((Store(0, 0, 1),), (Fetch(0, 10, 10),))
    assert not replay(hand(), waiting).faults
    assert shorten(hand(), waiting) == waiting


def test_no_copy_begins_or_ends_in_a_loop_that_the_value_is_not_in():
    tensor = dataclasses.replace(TENSOR, closed=((6, 10),))
    long = Schedule((Store(0, 0, 5),), (Fetch(0, 5, 10),))
    assert not replay(hand(tensor), long).faults
    assert shorten(hand(tensor), long).fetches == (Fetch(0, 5, 10),)


@pytest.mark.parametrize("seed", range(24))
def test_a_plan_with_shorter_windows_is_as_good(seed: int):
    free = random_problem(seed) if seed % 2 else loop_problem(seed)
    limit = limit_between(free, 0.4)
    options = SolverOptions(time_limit=30.0)
    schedule = JointProgram(free).fastest(limit, options).schedule
    assert schedule is not None
    found = shorten(free, schedule)
    before, after = replay(free, schedule), replay(free, found)
    assert not after.faults
    assert after.makespan <= before.makespan * (1 + 1e-5)
    assert (after.device <= before.device).all()
    assert (found.copies, found.recomputes) == (schedule.copies, schedule.recomputes)
