"""Plans that are shaken until they pack."""

import dataclasses
import math

import pytest

from autotm_jax.solve import (
    Deadline,
    JointProgram,
    Problem,
    Schedule,
    SolverOptions,
    packed_bytes,
    polish,
    replay,
)
from autotm_jax.solve.heap import Order, pack, pack_within
from autotm_jax.solve.ledger import Ledger
from autotm_jax.solve.shake import shake

from .problems import hard_problem, limit_between, random_problem


def not_packing(seed: int) -> tuple[Problem, Schedule] | None:
    """A problem and a plan that keeps its limit by live bytes alone."""
    free = random_problem(seed)
    program = JointProgram(free)
    for part in (0.0, 0.2, 0.4, 0.6, 0.8):
        limit = limit_between(free, part)
        schedule = program.fastest(limit, SolverOptions(60.0)).schedule
        if schedule is not None:
            schedule = polish(free, schedule)
            state = replay(free, schedule)
            if packed_bytes(free, state) > state.device_peak:
                limit = float(state.device_peak)
                return dataclasses.replace(free, device_limit=limit), schedule
    return None


def test_what_is_found_is_sound_and_packs():
    tried = [found for seed in range(30) if (found := not_packing(seed)) is not None]
    assert len(tried) >= 2
    fitting = 0
    for problem, schedule in tried:
        found = shake(problem, schedule, 1.0)
        if found is not None:
            state = replay(problem, found)
            assert not state.faults
            assert packed_bytes(problem, state) <= problem.device_limit
            assert polish(problem, found) == found
            fitting += 1
    assert fitting >= 1


def test_what_fits_is_an_end_already_and_is_only_made_faster():
    free = hard_problem(30)
    schedule = polish(free, Schedule())
    taken = packed_bytes(free, replay(free, schedule))
    problem = dataclasses.replace(free, device_limit=float(taken))
    seconds = replay(problem, schedule).makespan
    assert shake(problem, schedule, 5.0, enough=seconds) == schedule
    found = shake(problem, schedule, 0.5)
    assert found is not None
    assert replay(problem, found).makespan <= seconds


def test_it_ends_in_time():
    free = hard_problem(60)
    schedule = polish(free, Schedule())
    tight = replay(free, schedule).device_peak // 3
    problem = dataclasses.replace(free, device_limit=float(tight))
    deadline = Deadline(0.5)
    shake(problem, schedule, 0.5)
    assert deadline.taken() <= 1.0


@pytest.mark.parametrize("seed", range(10))
def test_a_packing_is_given_up_as_soon_as_it_takes_too_much(seed: int):
    problem = random_problem(seed)
    state = replay(problem, Schedule())
    whole = pack(problem, state)
    for most in (math.inf, whole.nbytes, whole.nbytes - 1):
        found = pack_within(problem, state, most)
        if most < whole.nbytes:
            assert found is None
        else:
            assert found is not None and found.nbytes == whole.nbytes
    each = [pack_within(problem, state, math.inf, [order]) for order in Order]
    assert min(p.nbytes for p in each if p is not None) == whole.nbytes


@pytest.mark.parametrize("seed", range(10))
def test_known_footprints_change_nothing(seed: int):
    problem = random_problem(seed)
    limit = limit_between(problem, 0.5)
    schedule = JointProgram(problem).fastest(limit, SolverOptions(60.0)).schedule
    ledger = Ledger(problem, schedule or Schedule())
    plain = replay(problem, ledger.schedule())
    quick = replay(problem, ledger.schedule(), ledger.footprints())
    assert (plain.stays, plain.faults) == (quick.stays, quick.faults)
    assert (plain.device == quick.device).all()
    assert plain.makespan == quick.makespan
