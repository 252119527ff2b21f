"""Routes of single tensors, and what they take together."""

import dataclasses
import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax.solve import Fetch, Problem, Schedule, Store, Tensor, replay
from autotm_jax.solve.one_engine import one_engine
from autotm_jax.solve.routes import Routes
from autotm_jax.solve.trips import Route, Trip

from .brute import REACH
from .problems import KIB, everything_away, limited, problem, random_moves


def every_route(problem: Problem, tensor: Tensor) -> Iterator[Route]:
    """All routes of a tensor, from what the words mean."""
    gaps = [(a, b) for a, b in itertools.pairwise(tensor.touches) if b > a + 1]
    for away in itertools.product([False, True], repeat=len(gaps)):
        choices: list[list[Trip | None]] = []
        is_written = False
        for is_away, (a, b) in zip(away, gaps, strict=True):
            if not is_away:
                choices.append([None])
                continue
            at = [a, *(k for k in range(a + 1, b) if problem.compute[k] > 0), b]
            if is_written:
                choices.append([Trip(None, into) for into in at[1:]])
            else:
                choices.append([Trip(*pair) for pair in itertools.combinations(at, 2)])
            is_written = True
        yield from itertools.product(*choices)


@given(seed=st.integers(0, 10**6), part=st.floats(0.0, 1.0))
def test_sums_are_those_of_the_checker(seed: int, part: float):
    known = limited(random_moves(seed), part)
    routes, draw = Routes(known, everything_away(known), REACH), random.Random(seed)
    for _ in range(12):
        if not routes.by_tensor:
            break
        index = draw.choice(sorted(routes.by_tensor))
        # Only in gaps where it may be of use to be away.
        count = len(routes.by_tensor[index])
        some = [
            route
            for route in every_route(known, known.tensors[index])
            if len(route) == count
        ]
        before = routes.seconds()
        if some:
            longer = routes.change(index, draw.choice(some))
            assert routes.seconds() - before == pytest.approx(longer, abs=1e-12)
        saved, before = routes.saved(index), routes.seconds()
        other = routes.copy()
        other.change(index, (None,) * count)
        assert before - other.seconds() == pytest.approx(saved, abs=1e-12)
        for found in (routes, other):
            schedule = found.schedule()
            state = replay(known, schedule)
            assert all("device bytes" in fault for fault in state.faults)
            over = state.device - known.device_limit
            assert found.over() == pytest.approx(over, abs=1.1)
            beside, waits = one_engine(known, schedule, state)
            seconds = np.maximum(state.compute, beside).sum() + waits
            assert found.seconds() == pytest.approx(seconds)
            # Two engines are never slower than one.
            assert state.makespan <= seconds * (1 + 1e-9)


@given(
    seed=st.integers(0, 10**6),
    part=st.floats(0.0, 0.9),
    is_priced=st.booleans(),
)
def test_it_takes_the_best_of_all_routes(seed: int, part: float, is_priced: bool):
    known, draw = limited(random_moves(seed), part), random.Random(seed)
    routes = Routes(known, everything_away(known), REACH)
    price = np.array([draw.choice([0.0, 1e-9, 1e-7]) for _ in known.compute])
    prices = np.concatenate([[0.0], np.cumsum(price)]) if is_priced else None
    for index, start in list(routes.by_tensor.items()):
        before = routes.copy()
        changed = routes.settle(index, prices)
        assert changed == (routes.by_tensor[index] != start)
        costs: list[float] = []
        for route in every_route(known, known.tensors[index]):
            if len(route) == len(start):
                other = before.copy()
                other.change(index, route)
                costs.append(_cost(other, price if is_priced else None))
        found = _cost(routes, price if is_priced else None)
        if costs:
            assert found == pytest.approx(min(costs), abs=1e-12)


def _cost(routes: Routes, price: np.ndarray | None) -> float:
    if price is not None:
        return routes.seconds() + float((price * routes.over()).sum())
    return np.inf if (routes.over() > 0).any() else routes.seconds()


def test_a_copy_is_no_longer_than_a_reach_from_a_touch():
    compute = [1e-4] * 21
    compute[8] = 1.0
    known = problem([Tensor(0, 64 * KIB, (0, 20))], 21, compute=compute, device_limit=0)
    given = everything_away(known)
    near, far = (Routes(known, given, reach) for reach in (5, 8))
    prices = np.concatenate([[0.0], np.cumsum([k == 10 for k in range(21)])])
    for routes in (near, far):
        routes.settle(0, prices)
    (trip,) = near.by_tensor[0]
    assert trip is not None and trip.out != 8
    (trip,) = far.by_tensor[0]
    assert trip is not None and trip.out == 8


def test_there_is_no_room_on_the_host_for_more():
    tensors = [Tensor(i, 8 * KIB, (0, 5)) for i in range(3)]
    known = problem(tensors, device_limit=24 * KIB, host_limit=8 * KIB)
    given = Schedule((Store(0, 0, 1),), (Fetch(0, 5, 5),))
    routes = Routes(dataclasses.replace(known, device_limit=16 * KIB), given, REACH)
    prices = np.arange(7) * 1.0
    for index in (1, 2, 0):
        routes.settle(index, prices)
    assert [any(route) for route in routes.by_tensor.values()] == [True, False, False]
