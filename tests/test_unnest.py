import dataclasses
import itertools
import random

import pytest

from autotm_jax.solve import (
    Carried,
    Fetch,
    JointProgram,
    Link,
    Problem,
    Schedule,
    SolverOptions,
    Store,
    Tensor,
    replay,
)
from autotm_jax.solve.unnest import unnest

from .problems import (
    hard_problem,
    limit_between,
    loop_problem,
    problem,
    random_problem,
    state_problem,
)


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


def test_what_runs_around_a_shorter_copy_ends_as_much_earlier():
    nested = moved(Fetch(0, 4, 10), Fetch(1, 6, 8))
    free = hand(AROUND, INSIDE)
    assert not replay(free, nested).faults
    found = unnest(free, nested)
    assert found == moved(Fetch(0, 4, 10, done=6), Fetch(1, 6, 8))
    assert unnest(free, found) == found


# Alone it takes all of seven segments.
LARGE = dataclasses.replace(AROUND, nbytes=140)
SLOW = dataclasses.replace(LINK, h2d=20.0, d2h=1e9, duplex=1e9)


def test_it_begins_later_where_there_is_no_time_before():
    nested = moved(Fetch(0, 3, 10), Fetch(1, 4, 8))
    free = hand(LARGE, INSIDE, link=SLOW)
    # There is no room for the other one to begin with it.
    peak = replay(free, nested).device_peak
    full = dataclasses.replace(free, small=((20, 3, 4),), device_limit=peak)
    assert not replay(full, nested).faults
    found = unnest(full, nested)
    assert found.fetches[1] == Fetch(1, 4, 8)
    assert found.fetches[0] in (Fetch(0, 3, 10, done=7), Fetch(0, 4, 10))


def test_the_shorter_one_takes_as_long_where_there_is_room():
    nested = moved(Fetch(0, 3, 10), Fetch(1, 4, 8))
    free = hand(LARGE, INSIDE, link=SLOW)
    found = unnest(free, nested)
    assert found == moved(Fetch(0, 3, 10), Fetch(1, 3, 8))
    assert replay(free, found).makespan == replay(free, nested).makespan


def test_one_ends_where_the_other_begins_if_there_is_time_for_both_in_turn():
    # Four segments, and the last one before the other value is read.
    large = dataclasses.replace(AROUND, nbytes=80)
    nested = moved(Fetch(0, 3, 10), Fetch(1, 6, 8))
    free = hand(large, INSIDE, link=SLOW)
    full = dataclasses.replace(free, small=((20, 3, 6),), device_limit=100)
    assert not replay(full, nested).faults
    found = unnest(full, nested)
    assert found == moved(Fetch(0, 3, 10, done=7), Fetch(1, 7, 8))
    assert replay(full, found).makespan == 12.0 < replay(full, nested).makespan


def test_a_store_ends_later_if_there_is_room():
    values = Tensor(0, 80, (0, 11)), Tensor(1, 20, (1, 11))
    slow = dataclasses.replace(LINK, d2h=20.0, h2d=1e9, duplex=1e9)
    fetches = Fetch(0, 11, 11), Fetch(1, 11, 11)
    nested = Schedule((Store(0, 0, 6), Store(1, 1, 3, start=2)), fetches)
    free = hand(*values, link=slow)
    full = dataclasses.replace(free, small=((20, 6, 8),), device_limit=100)
    assert not replay(full, nested).faults
    found = unnest(full, nested)
    assert found.stores == (Store(0, 0, 6), Store(1, 1, 7, start=2))
    assert not replay(full, found).faults
    assert replay(full, found).makespan < replay(full, nested).makespan


def overlapping() -> tuple[Problem, Schedule]:
    """Five stores, of which the second is around the third."""
    sizes = (40, 0), (80, 1), (40, 5), (40, 9), (40, 11)
    values = [Tensor(i, size, (at, 23)) for i, (size, at) in enumerate(sizes)]
    stores = Store(0, 0, 5), Store(1, 1, 10), Store(2, 5, 9), Store(3, 9, 14)
    fetches = tuple(Fetch(i, 23, 23) for i in range(5))
    nested = Schedule((*stores, Store(4, 11, 16)), fetches)
    link = Link(20.0, 1e9, 1e9, 0.0)
    free = dataclasses.replace(problem(values, 24), compute=(1.0,) * 24, link=link)
    return free, nested


def test_all_behind_it_begin_one_after_another_where_two_in_turn_are_too_slow():
    free, nested = overlapping()
    assert not replay(free, nested).faults
    found = unnest(free, nested)
    windows = [store.window for store in found.stores]
    assert windows == [(1, 5), (2, 10), (10, 12), (12, 14), (14, 16)]
    # As those of the values that are behind it overlapped before.
    assert replay(free, found).makespan < replay(free, nested).makespan


@pytest.mark.parametrize("seed", range(60))
def test_what_is_behind_it_is_there_when_it_is_read(seed: int):
    draw = random.Random(seed)
    uses = [draw.randint(9, 13) for _ in range(draw.randint(2, 4))]
    values = [Tensor(i, draw.choice((20, 40, 80)), (0, k)) for i, k in enumerate(uses)]
    stores = tuple(Store(i, 0, 3) for i in range(len(uses)))
    fetches = tuple(Fetch(i, draw.randint(3, k - 1), k) for i, k in enumerate(uses))
    link = Link(1e9, 20.0, 1e9, 0.0)
    free = dataclasses.replace(problem(values, 14), compute=(1.0,) * 14, link=link)
    found = unnest(free, Schedule(stores, fetches))
    assert not replay(free, found).faults
    assert not any(fetch.is_ahead for fetch in found.fetches)


def test_what_everything_waits_for_begins_when_others_have_ended():
    waiting = moved(Fetch(0, 4, 10), Fetch(1, 8, 8))
    found = unnest(hand(AROUND, INSIDE), waiting)
    assert found == moved(Fetch(0, 4, 10, done=8), Fetch(1, 8, 8))


def test_copies_that_are_no_longer_than_later_ones_stay_as_they_are():
    for around, inside in (
        (Fetch(0, 5, 10), Fetch(1, 5, 8)),
        (Fetch(0, 8, 10), Fetch(1, 6, 8)),
        (Fetch(0, 5, 10), Fetch(1, 4, 8)),
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


def test_copies_in_a_loop_do_not_matter_outside_of_it():
    nested = moved(Fetch(0, 4, 10), Fetch(1, 6, 8))
    outside = dataclasses.replace(AROUND, closed=((5, 9),))
    assert unnest(hand(outside, INSIDE), nested) == nested


def test_state_makes_room_for_what_is_fetched_beside_it():
    # It is there before the step, and what takes its place is stored.
    state = Tensor(3, 20, (10,), carried=Carried((11,), 12))
    stores = Store(INSIDE.value, 1, 3), Store(3, 11, 12, start=12)
    nested = Schedule(stores, (Fetch(1, 6, 8), Fetch(3, 4, 10)))
    free = hand(INSIDE, state)
    assert not replay(free, nested).faults
    found = unnest(free, nested)
    assert found == Schedule(stores, (Fetch(1, 6, 8), Fetch(3, 4, 10, done=6)))


@pytest.mark.parametrize("seed", range(36))
def test_no_copy_of_a_plan_is_longer_than_one_that_begins_beside_it(seed: int):
    kinds = random_problem, loop_problem, state_problem
    free = kinds[seed % len(kinds)](seed)
    limit = limit_between(free, 0.4)
    limited = dataclasses.replace(free, device_limit=limit)
    schedule = JointProgram(free).fastest(limit, SolverOptions()).schedule
    assert schedule is not None
    found = unnest(limited, schedule)
    assert not replay(limited, found).faults
    assert found.copies == schedule.copies
    crossing = {t.value for t in free.tensors if t.crossing is not None}
    windows = [
        copy.window
        for copy in (*found.stores, *found.fetches)
        if copy.value not in crossing
    ]
    closed = {cut for t in free.tensors for cut in itertools.chain(*t.closed)}
    for (a, b), (c, d) in itertools.permutations(windows, 2):
        assert not a < c < b or b - a <= d - c or closed


@pytest.mark.parametrize("is_limited", [False, True])
@pytest.mark.parametrize("layers", [8, 20, 40])
def test_many_copies_are_in_order_at_once(layers: int, is_limited: bool):
    free, draw = hard_problem(layers), random.Random(layers)
    away = [t for t in free.tensors if t.touches[-1] - t.touches[-2] > 8]
    stores, fetches = [], []
    for tensor in away:
        left, back = tensor.touches[-2:]
        done = min(back, left + draw.randint(1, 6))
        stores.append(Store(tensor.value, left, done))
        start = max(left + 7, back - draw.randint(1, 10))
        fetches.append(Fetch(tensor.value, start, back))
    nested = Schedule(tuple(sorted(stores)), tuple(sorted(fetches)))
    before = replay(free, nested)
    peak = float(before.device_peak)
    if is_limited:
        free = dataclasses.replace(free, device_limit=peak)
    found = unnest(free, nested)
    after = replay(free, found)
    assert found != nested and not after.faults
    assert after.device_peak <= peak
    windows = [copy.window for copy in (*found.stores, *found.fetches)]
    for (a, b), (c, d) in itertools.permutations(windows, 2):
        assert not a < c < b or b - a <= d - c
    assert unnest(free, found) == found


def test_of_many_copies_none_are_put_in_a_row(monkeypatch: pytest.MonkeyPatch):
    free, nested = overlapping()
    few = unnest(free, nested)
    monkeypatch.setattr("autotm_jax.solve.unnest._MOST_QUEUED", 9)
    many = unnest(free, nested)
    assert replay(free, few).makespan < replay(free, many).makespan
