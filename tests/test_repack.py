"""Plans that fit by their live bytes, and then by their allocation."""

import dataclasses

import pytest

from autotm_jax.solve import (
    JointProgram,
    Problem,
    Schedule,
    SolverOptions,
    packed_bytes,
    polish,
    repack,
)
from autotm_jax.solve.checker import replay

from .problems import limit_between, random_problem


def plans(seed: int) -> list[Schedule]:
    """Optima of a random problem at several limits, and the one that does nothing."""
    free = random_problem(seed)
    program, options = JointProgram(free), SolverOptions(time_limit=60.0)
    limits = [limit_between(free, part) for part in (0.0, 0.2, 0.4, 0.6, 0.8)]
    found = [program.fastest(limit, options).schedule for limit in limits]
    return [Schedule(), *(s for s in found if s is not None)]


def fitting(seed: int) -> tuple[Problem, Schedule] | None:
    """A problem and a placement that fits it, but does not pack."""
    free = random_problem(seed)
    for schedule in plans(seed):
        peak = replay(free, schedule).device_peak
        problem = dataclasses.replace(free, device_limit=float(peak))
        if packed_bytes(problem, replay(problem, schedule)) > peak:
            return problem, schedule
    return None


def test_what_packs_badly_is_changed_until_it_fits():
    bad = [found for seed in range(30) if (found := fitting(seed)) is not None]
    assert len(bad) >= 2
    fixed = 0
    for problem, schedule in bad:
        packed = repack(problem, schedule, 2.0)
        if packed is not None:
            state = replay(problem, packed)
            assert not state.faults
            assert packed_bytes(problem, state) <= problem.device_limit
            fixed += 1
    assert fixed >= 1


@pytest.mark.parametrize("seed", range(10))
def test_what_packs_is_left_alone(seed: int):
    free = random_problem(seed)
    schedule = polish(free, plans(seed)[1])
    taken = packed_bytes(free, replay(free, schedule))
    problem = dataclasses.replace(free, device_limit=float(taken))
    assert repack(problem, schedule, 10.0) == schedule
