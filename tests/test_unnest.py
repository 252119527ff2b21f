import dataclasses
import itertools

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
from autotm_jax.solve.unnest import unnest

from .problems import limit_between, loop_problem, problem, random_problem


# A copy takes half of a segment.
LINK = Link(40.0, 40.0, 80.0, 0.0)
AROUND, INSIDE = Tensor(0, 20, (0, 10)), Tensor(1, 20, (1, 8))


def hand(*tensors: Tensor, link: Link = LINK):
    """Twelve segments of one second."""
    found = problem(list(tensors), 12)
    return dataclasses.replace(found, compute=(1.0,) * 12, link=link)


def moved(around: Fetch, inside: Fetch) -> Schedule:
    """Two values that are away for a while."""
    stores = Store(AROUND.value, 0, 2), Store(INSIDE.value, 1, 3)
    return Schedule(stores, (around, inside))


def test_what_runs_around_another_copy_ends_before_it():
    nested = moved(Fetch(0, 4, 10), Fetch(1, 6, 8))
    free = hand(AROUND, INSIDE)
    assert not replay(free, nested).faults
    found = unnest(free, nested)
    assert found == moved(Fetch(0, 4, 10, done=7), Fetch(1, 6, 8))
    assert unnest(free, found) == found


def test_it_begins_with_the_other_where_there_is_no_time_before():
    # The one around needs seven segments, of which four are beside the other copy.
    large = dataclasses.replace(AROUND, nbytes=140)
    slow = dataclasses.replace(LINK, h2d=20.0, d2h=1e9, duplex=1e9)
    nested = moved(Fetch(0, 3, 10), Fetch(1, 6, 8))
    free = hand(large, INSIDE, link=slow)
    assert not replay(free, nested).faults
    found = unnest(free, nested)
    assert found.fetches[1] == Fetch(1, 6, 8)
    first, end = found.fetches[0].window
    assert end < 8 or first == 6


def test_a_copy_that_everything_waits_for_is_in_nobodys_way_when_others_end_there():
    waiting = moved(Fetch(0, 4, 10), Fetch(1, 8, 8))
    found = unnest(hand(AROUND, INSIDE), waiting)
    assert found == moved(Fetch(0, 4, 10, done=8), Fetch(1, 8, 8))


def test_copies_in_turn_stay_as_they_are():
    for around, inside in (
        (Fetch(0, 5, 10), Fetch(1, 5, 8)),
        (Fetch(0, 8, 10), Fetch(1, 6, 8)),
        (Fetch(0, 7, 10), Fetch(1, 6, 8)),
    ):
        in_turn = moved(around, inside)
        assert unnest(hand(AROUND, INSIDE), in_turn) == in_turn


def test_a_store_makes_room_for_a_fetch():
    late = Tensor(2, 20, (5, 11))
    nested = Schedule(
        (Store(1, 1, 3), Store(2, 5, 9)), (Fetch(1, 7, 8), Fetch(2, 10, 11))
    )
    found = unnest(hand(INSIDE, late), nested)
    assert found.stores == (Store(1, 1, 3), Store(2, 5, 7))


@pytest.mark.parametrize("seed", range(24))
def test_copies_of_a_plan_end_in_the_order_in_which_they_begin(seed: int):
    free = random_problem(seed) if seed % 2 else loop_problem(seed)
    limited = dataclasses.replace(free, device_limit=limit_between(free, 0.5))
    solution = JointProgram(limited).fastest(
        limited.device_limit, SolverOptions(time_limit=10)
    )
    if solution.schedule is None:
        pytest.skip("no plan keeps this limit")
    found = unnest(limited, solution.schedule)
    assert not replay(limited, found).faults
    assert found.copies == solution.schedule.copies
    crossing = {t.value for t in free.tensors if t.crossing is not None}
    windows = [
        copy.window
        for copy in (*found.stores, *found.fetches)
        if copy.value not in crossing
    ]
    closed = {cut for t in free.tensors for cut in itertools.chain(*t.closed)}
    for (a, b), (c, d) in itertools.permutations(windows, 2):
        assert not a < c < b or d >= b or not closed.isdisjoint({b, c, d})
