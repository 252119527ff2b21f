"""Plans that fit by their live bytes, and then by their allocation."""

import dataclasses

import pytest

from autotm_jax.solve import Problem, Schedule, packed_bytes, repack
from autotm_jax.solve.checker import replay

from .problems import random_problem
from .test_joint import everything


def fitting(seed: int) -> tuple[Problem, Schedule] | None:
    """A problem and a placement that fits it, but does not pack."""
    free = random_problem(seed)
    for _, peak, schedule in everything(seed):
        problem = dataclasses.replace(free, device_limit=float(peak))
        if packed_bytes(problem, replay(problem, schedule)) > peak:
            return problem, schedule
    return None


def test_what_packs_badly_is_changed_until_it_fits():
    bad = [found for seed in range(80) if (found := fitting(seed)) is not None]
    assert len(bad) >= 5
    fixed = 0
    for problem, schedule in bad:
        packed = repack(problem, schedule, 10.0)
        if packed is not None:
            state = replay(problem, packed)
            assert not state.faults
            assert packed_bytes(problem, state) <= problem.device_limit
            fixed += 1
    assert fixed >= 1


@pytest.mark.parametrize("seed", range(10))
def test_what_packs_is_left_alone(seed: int):
    schedule = everything(seed)[0][2]
    free = random_problem(seed)
    taken = packed_bytes(free, replay(free, schedule))
    problem = dataclasses.replace(free, device_limit=float(taken))
    assert repack(problem, schedule, 10.0) == schedule
