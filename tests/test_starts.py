"""Plans that need no program."""

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from autotm_jax.solve import (
    Deadline,
    Problem,
    Schedule,
    best_policy,
    descend,
    largest_first,
    offload_everything,
    replay,
    uniform,
)
from autotm_jax.solve.starts import Starts

from .problems import hard_problem, limit_between, loop_problem, random_problem


def bounded(free: Problem, part: float) -> Problem:
    return dataclasses.replace(free, device_limit=limit_between(free, part))


def plans(starts: Starts, anneals: bool = False) -> Iterator[tuple[str, Schedule]]:
    """Until there is nothing more to be done."""
    while (turn := starts.turn(anneals)) is not None:
        name, schedule = turn
        if schedule is not None:
            yield name, schedule


@pytest.mark.parametrize("kind", [random_problem, loop_problem])
@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_every_plan_passes_the_checker(kind: Callable[[int], Problem], seed: int):
    free = kind(seed)
    for part in (0.3, 0.6):
        problem = bounded(free, part)
        starts = Starts(problem, offload_everything(free), Deadline(30.0))
        for name, schedule in plans(starts):
            assert not replay(problem, schedule).faults, name


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_nothing_that_it_begins_with_is_faster(seed: int):
    free = random_problem(seed)
    problem = bounded(free, 0.5)
    known = offload_everything(free)
    starts = Starts(problem, known, Deadline(30.0))
    starts.begin_with(Schedule())
    found = [replay(problem, schedule).makespan for _, schedule in plans(starts)]
    policy = best_policy(problem)
    others = [policy and policy[1], known, uniform(problem), largest_first(problem)]
    others += [descend(problem, s, 30.0) for s in (known, Schedule())]
    for other in others:
        state = None if other is None else replay(problem, other)
        if state is not None and not state.faults:
            assert min(found) <= state.makespan * (1 + 1e-9)


def test_the_same_plans_come_in_the_same_order():
    problem = bounded(random_problem(3), 0.5)
    one, other = (list(plans(Starts(problem, None, Deadline(60.0)))) for _ in range(2))
    assert one == other and one


def test_without_time_there_is_what_takes_none():
    problem = bounded(hard_problem(60), 0.5)
    policy = best_policy(problem)
    assert policy is not None
    starts = Starts(problem, None, Deadline(0.0))
    assert next(plans(starts)) == policy
    assert len(list(plans(starts, anneals=True))) <= 2


def test_a_relaxation_comes_next_when_it_is_known():
    problem = bounded(hard_problem(20), 0.5)
    starts = Starts(problem, None, Deadline(60.0))
    starts.turn(anneals=False)  # policies
    rounded = offload_everything(problem)
    starts.begin_with(rounded)
    turn = starts.turn(anneals=False)
    assert turn is not None and turn[1] is not None
    assert replay(problem, turn[1]).makespan <= replay(problem, rounded).makespan


def test_an_annealing_that_is_cut_short_is_begun_again():
    problem = bounded(hard_problem(10), 0.5)
    starts = Starts(problem, None, Deadline(10.0))
    list(plans(starts))
    assert starts.turn(anneals=False) is None
    starts.is_wanted = lambda: False
    for _ in range(3):
        assert starts.turn(anneals=True) is not None
    starts.is_wanted = lambda: True
    assert all(not replay(problem, s).faults for _, s in plans(starts, anneals=True))
    assert starts.turn(anneals=True) is None
