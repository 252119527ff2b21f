"""Kernels whose IO configurations are given by parts that add up."""

import dataclasses
import itertools
import random

import pytest

from autotm_jax.solve import (
    PROGRAMS,
    Configuration,
    Formulation,
    Problem,
    Schedule,
    SolverOptions,
    Status,
    Stream,
    replay,
)
from autotm_jax.solve.ledger import Choice, Ledger

from .problems import KIB, problem, random_problem


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)


def _divided(seed: int) -> tuple[Problem, Problem]:
    """A problem whose kernels have parts, and the same with each choice listed."""
    draw = random.Random(seed)
    found = random_problem(seed)
    parts: dict[int, tuple[Configuration, ...]] = {}
    whole: dict[int, tuple[Configuration, ...]] = {}
    for k in range(found.segments):
        here = [i for i, t in enumerate(found.tensors) if k in t.touches and t.movable][
            :4
        ]
        groups = [here[:2], here[2:3], here[3:]] if draw.random() < 0.5 else [here]
        known = [
            [
                Configuration(
                    frozenset(host),
                    draw.uniform(0.1e-3, 3e-3),
                    KIB * draw.randint(0, 4),
                    part,
                )
                for n in range(1, len(group) + 1)
                for host in itertools.combinations(group, n)
            ]
            for part, group in enumerate(groups)
        ]
        parts[k] = tuple(itertools.chain(*known))
        chosen = itertools.product(*([None, *every] for every in known))
        sums = [[c for c in some if c is not None] for some in chosen]
        whole[k] = tuple(
            Configuration(
                frozenset().union(*(c.host for c in some)),
                sum(c.seconds for c in some),
                sum(c.staging for c in some),
            )
            for some in sums
            if some
        )
    return (
        dataclasses.replace(found, configurations=parts),
        dataclasses.replace(found, configurations=whole),
    )


@pytest.mark.parametrize("seed", range(12))
def test_parts_stand_for_every_choice_of_one_from_each(seed: int):
    divided, listed = _divided(seed)
    assert divided.floor() == listed.floor()
    for formulation in Formulation:
        one, other = (PROGRAMS[formulation](p) for p in (divided, listed))
        least = one.least_memory(EXACT).objective
        assert least == pytest.approx(other.least_memory(EXACT).objective, rel=1e-4)
        most = replay(divided, Schedule()).device_peak
        for part in (0.05, 0.4):
            limit = least + part * (most - least) + KIB
            solutions = [p.fastest(limit, EXACT) for p in (one, other)]
            assert {s.status for s in solutions} == {Status.OPTIMAL}
            first, second = (s.objective for s in solutions)
            assert first == pytest.approx(second, rel=1e-4)
            for solution in solutions:
                assert solution.schedule is not None
                states = [replay(p, solution.schedule) for p in (divided, listed)]
                assert states[0].faults == states[1].faults == ()
                assert states[0].makespan == pytest.approx(states[1].makespan)
                assert states[0].device_peak == states[1].device_peak


def _small() -> Problem:
    known = (
        Configuration(frozenset({0}), 1.0, 1, 0),
        Configuration(frozenset({1}), 2.0, 2, 1),
        Configuration(frozenset({1, 2}), 4.0, 3, 1),
    )
    tensors = random_problem(0).tensors[:1]
    (tensor,) = tensors
    tensors = [
        dataclasses.replace(
            tensor, value=i, nbytes=10, touches=(0, 1), optional=(), recipe=None
        )
        for i in range(3)
    ]
    return problem(tensors, 2, configurations={1: known})


def test_parts_add_their_seconds_and_staging():
    found = _small()
    assert found.streamed(1, {0}) == Configuration(frozenset({0}), 1.0, 1)
    assert found.streamed(1, {0, 1, 2}) == Configuration(frozenset({0, 1, 2}), 5.0, 4)
    assert found.streamed(1, {2}) is None
    assert found.streamed(1, {0, 2}) is None
    assert found.streamed(0, {0}) is None


def test_a_local_search_adds_parts_as_the_checker_does():
    found = _small()
    schedule = Schedule(streams=(Stream(0, 1), Stream(1, 1)))
    ledger = Ledger(found, Schedule())
    ledger.change({0: Choice(streams=(1,)), 1: Choice(streams=(1,))})
    state = replay(found, schedule)
    assert ledger.seconds() == pytest.approx(state.makespan)
    assert ledger.device().tolist() == state.device.tolist()
