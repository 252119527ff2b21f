"""XLA's rule of what frees most first."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable

import pytest

from autotm_jax.solve import (
    Problem,
    Recipe,
    Recompute,
    Schedule,
    Tensor,
    largest_first,
    replay,
)

from .problems import hard_problem, loop_problem, problem, random_problem


# Value 1 is large and slow to make, value 2 small and fast; both from value 0.
TENSORS = [
    Tensor(0, 1000, (0, 1, 2, 9), optional=(7, 8)),
    Tensor(1, 4000, (1, 8), recipe=Recipe({8: 5e-3}, 0, (0,))),
    Tensor(2, 3000, (2, 7), recipe=Recipe({7: 0.1e-3}, 0, (0,))),
]


def test_it_takes_what_frees_most_whatever_that_costs():
    known = problem(TENSORS, 10, device_limit=5000)
    # At segment 2 the three take 8,000 bytes, and without value 1 4,000.
    assert largest_first(known).recomputes == (Recompute(1, 8),)


def test_it_goes_on_where_it_cannot_keep_the_limit():
    known = problem(TENSORS, 10, device_limit=3500)
    assert largest_first(known).recomputes == (Recompute(1, 8), Recompute(2, 7))


@pytest.mark.parametrize("seed", range(40))
def test_it_breaks_no_rule_but_the_limit(seed: int):
    known = random_problem(seed)
    peak = replay(known, Schedule()).device_peak
    assert largest_first(dataclasses.replace(known, device_limit=peak)) == Schedule()
    for share in (0.8, 0.5):
        tight = dataclasses.replace(known, device_limit=share * peak)
        schedule = largest_first(tight)
        free = dataclasses.replace(known, device_limit=float("inf"))
        state = replay(free, schedule)
        assert not state.faults and not schedule.moved
        assert state.device_peak <= peak


def test_without_time_it_ends_early():
    known = hard_problem(60)
    tight = dataclasses.replace(known, device_limit=float(known.floor()))
    assert largest_first(tight, 0.0) == Schedule()
    start = time.perf_counter()
    whole = largest_first(tight)
    assert whole.recomputes and time.perf_counter() - start < 10.0


def by_trial(problem: Problem) -> Schedule:
    """The same, each candidate replayed as a whole."""
    free = dataclasses.replace(problem, device_limit=math.inf)

    def at(schedule: Schedule, segment: int) -> float:
        state = replay(free, schedule)
        return math.inf if state.faults else state.device[segment]

    chosen = Schedule()
    for k in range(problem.segments):
        while (now := at(chosen, k)) > problem.device_limit:
            trials = [
                Schedule(recomputes=(*chosen.recomputes, Recompute(tensor.value, b)))
                for tensor in problem.tensors
                for a, b in itertools.pairwise(tensor.touches)
                if a < k < b and tensor.recipe and b in tensor.recipe.seconds
                if Recompute(tensor.value, b) not in chosen.recomputes
            ]
            best = min(trials, key=lambda trial: at(trial, k), default=chosen)
            if at(best, k) >= now:
                break
            chosen = best
    return Schedule(recomputes=tuple(sorted(chosen.recomputes)))


@pytest.mark.parametrize("kind", [random_problem, loop_problem])
@pytest.mark.parametrize("seed", range(40))
def test_at_each_segment_it_takes_what_frees_most_until_nothing_does(
    kind: Callable[[int], Problem], seed: int
):
    known = kind(seed)
    peak = replay(known, Schedule()).device_peak
    for share in (0.8, 0.6, 0.4):
        tight = dataclasses.replace(known, device_limit=share * peak)
        assert largest_first(tight) == by_trial(tight)


@pytest.mark.parametrize(
    ("seed", "share", "recomputes"),
    [
        (50, 0.4, (Recompute(0, 7), Recompute(1, 4), Recompute(2, 7))),
        (82, 0.8, (Recompute(0, 5), Recompute(1, 3))),
    ],
)
def test_what_frees_nothing_at_one_segment_is_tried_at_the_next(
    seed: int, share: float, recomputes: tuple[Recompute, ...]
):
    # Value 0 is a root of value 1: until that is made again, it has to stay.
    known = random_problem(seed)
    limit = share * replay(known, Schedule()).device_peak
    tight = dataclasses.replace(known, device_limit=limit)
    assert largest_first(tight).recomputes == recomputes


def test_what_has_to_stay_for_a_value_frees_less():
    # To make value 1 again takes value 0, of nearly the same size; value 2 frees more.
    tensors = [
        Tensor(0, 3500, (0, 1), optional=(5,)),
        Tensor(1, 4000, (1, 5), recipe=Recipe({5: 1e-3}, 0, (0,))),
        Tensor(2, 1000, (1, 6), recipe=Recipe({6: 1e-3}, 0, ())),
    ]
    known = problem(tensors, 7, device_limit=4000)
    assert largest_first(known).recomputes == (Recompute(2, 6),)
    tighter = dataclasses.replace(known, device_limit=3500)
    assert largest_first(tighter).recomputes == (Recompute(1, 5), Recompute(2, 6))
