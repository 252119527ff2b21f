"""Where the networks let a tensor go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax.solve import (
    Carried,
    Configuration,
    Fetch,
    Schedule,
    Store,
    Stream,
    Tensor,
)
from autotm_jax.solve.routes import Routes
from autotm_jax.solve.trips import Trip, copies_of, routes_of

from .brute import REACH
from .problems import KIB, everything_away, limited, problem, random_moves


@given(seed=st.integers(0, 10**6), part=st.floats(0.0, 1.0))
def test_a_schedule_is_read_as_it_is_written(seed: int, part: float):
    known = limited(random_moves(seed), part)
    start = everything_away(known)
    routes = Routes(known, start, REACH)
    assert routes.schedule() == start
    for index in routes.by_tensor:
        routes.settle(index)
    schedule = routes.schedule()
    again = Routes(known, schedule, REACH)
    assert again.schedule() == schedule
    assert again.seconds() == pytest.approx(routes.seconds())


def test_what_has_rules_of_its_own_stays_as_it_is():
    tensors = [
        Tensor(0, 8 * KIB, (0, 5)),
        Tensor(1, 8 * KIB, (0, 5), carried=Carried((), 6)),
        Tensor(2, 8 * KIB, (0, 5), movable=False),
        Tensor(3, 8 * KIB, (0, 5), closed=((1, 3),)),
        Tensor(4, 8 * KIB, (0, 5)),  # streamed
        Tensor(5, 8 * KIB, (0, 5)),  # with a copy beside two segments
        Tensor(6, 8 * KIB, (4, 5)),
    ]
    streams = {k: (Configuration(frozenset({4}), 1e-4, KIB),) for k in (0, 5)}
    known = problem(tensors, device_limit=8 * KIB, configurations=streams)
    given = Schedule(
        (Store(0, 0, 1), Store(5, 0, 3)),
        (Fetch(0, 5, 5), Fetch(5, 5, 5)),
        streams=(Stream(4, 0), Stream(4, 5)),
    )
    routes = Routes(known, given, REACH)
    assert routes.by_tensor == {0: (Trip(0, 5),)}
    assert routes.schedule() == given
    routes.change(0, (None,))
    schedule = routes.schedule()
    assert schedule.stores == (Store(5, 0, 3),) and schedule.streams == given.streams


def test_gadgets_are_those_of_touches_and_near_them():
    compute = [1e-3] * 13
    compute[2] = 0.0  # there is nothing to run beside
    known = problem([Tensor(7, KIB, (0, 9, 10, 12))], 13, compute=compute)
    schedule = Schedule((Store(7, 0, 4, 3),), (Fetch(7, 8, 9), Fetch(7, 12, 12)))
    gaps, route = routes_of(known, schedule, 3)[0]
    assert route == (Trip(3, 8), Trip(None, 12))
    assert copies_of(known.tensors[0], route) == (
        list(schedule.stores),
        list(schedule.fetches),
    )
    first, second = gaps
    assert [first.at(k) for k in range(7)] == [0, 1, 3, 6, 7, 8, 9]
    assert [second.at(k) for k in range(3)] == [10, 11, 12]
