"""Plans that are shaken until they pack."""

import dataclasses
import math
import random

import pytest

from autotm_jax.solve import (
    Deadline,
    JointProgram,
    Schedule,
    SolverOptions,
    Tensor,
    packed_bytes,
    polish,
    replay,
)
from autotm_jax.solve.heap import clocks_over, left_out, pack, pack_within
from autotm_jax.solve.ledger import Ledger
from autotm_jax.solve.shake import shake
from autotm_jax.timeline import Timeline

from .packing import not_packing, packs
from .problems import (
    KIB,
    everything_away,
    hard_problem,
    limit_between,
    random_problem,
)
from .problems import problem as problem_of


def test_what_is_found_is_sound_and_packs():
    bad = [found for seed in range(30) if (found := not_packing(seed)) is not None]
    assert len(bad) >= 2
    tried = [(problem, shake(problem, plan, 1.0)) for problem, plan in bad]
    found = [(problem, plan) for problem, plan in tried if plan is not None]
    assert found
    for problem, plan in found:
        assert packs(problem, plan)
        assert polish(problem, plan) == plan


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


def test_another_schedule_fits_as_well():
    free = hard_problem(30)
    whole = polish(free, Schedule())
    limit = 0.7 * packed_bytes(free, replay(free, whole))
    problem = dataclasses.replace(free, device_limit=limit)
    first = shake(problem, whole, 5.0, enough=math.inf)
    assert first is not None
    others = [shake(problem, first, 5.0, math.inf, number) for number in (1, 2)]
    for other in others:
        assert other is not None and other != first
        assert packs(problem, other)
    assert others[0] != others[1]


def test_no_copy_is_moved_beyond_the_last_segment():
    tensors = [Tensor(i, 8 * KIB, (0, 5)) for i in range(4)]
    free = problem_of(tensors, small=[(16 * KIB, 0, 6)])
    away = everything_away(free)
    limit = float(packed_bytes(free, replay(free, away)))
    tight = dataclasses.replace(free, device_limit=limit)
    for number in range(20):
        found = shake(tight, away, 0.2, math.inf, number)
        assert found is None or packs(tight, found)


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


@pytest.mark.parametrize("seed", range(10))
def test_what_does_not_fit_is_left_out(seed: int):
    problem = random_problem(seed)
    state = replay(problem, Schedule())
    packing = pack(problem, state)
    rows = sorted(packing.buffers.tolist())
    out = left_out(problem, state, sum(nbytes for nbytes, _, _ in rows))
    assert out is not None and out.shape == (0, 3)
    last = 0
    for part in (0.9, 0.6, 0.3, 0.0):
        limit = part * state.device_peak
        out = left_out(problem, state, limit)
        assert out is not None and len(out) >= 1
        assert all(row in rows for row in out.tolist())
        sizes = out[:, 0].tolist()
        assert sizes == sorted(sizes, reverse=True)
        # What is left fits, so at each segment it is no more than the limit.
        device = state.device.copy()
        for nbytes, first, end in out.tolist():
            device[first:end] -= nbytes
        assert device.max() <= limit
        assert sum(sizes) >= last
        last = sum(sizes)
        assert left_out(problem, state, limit, most=last) is not None
        assert left_out(problem, state, limit, most=last - 1) is None
        assert 0 in clocks_over(problem, state, limit)
    assert len(out) == sum(nbytes > 0 for nbytes, _, _ in rows)


def test_clocks_differ_in_what_fits():
    draw = random.Random(4)  # of the first ten, the one in which they do
    problem = problem_of(
        [
            Tensor(
                i,
                draw.choice((16, 24, 40)) * KIB,
                tuple(sorted(draw.sample(range(30), 2))),
            )
            for i in range(60)
        ],
        30,
    )
    state = replay(problem, Schedule())
    whole = pack(problem, state).nbytes
    counts: set[int] = set()
    for limit in range(state.device_peak, whole + 1, 8 * KIB):
        over = clocks_over(problem, state, limit)
        for clock in range(7):
            out = left_out(problem, state, limit, clock)
            assert out is not None and (len(out) > 0) == (clock in over)
        # One clock may be alone with what it says.
        fits = pack_within(problem, state, limit) is not None
        assert fits == (limit >= whole) == (len(over) <= 1)
        counts.add(len(over))
    assert counts - {0, 7}


@pytest.mark.parametrize("count", range(4, 12))
def test_live_bytes_count_where_they_pack(count: int):
    # What segment 2 makes comes to be where its workspace was, and packs.
    tensors = [Tensor(i, 8 * KIB, (0, 4)) for i in range(count)]
    tensors.append(Tensor(count, 24 * KIB, (2, 3)))
    free = problem_of(tensors, workspace=[0, 0, 32 * KIB, 0, 0, 0])
    timeline = Timeline((1, 1), own=((32 * KIB, 0, 1, 1),), made=((count, 1, 2),))
    free = dataclasses.replace(free, timelines={2: timeline})
    state = replay(free, Schedule())
    limit = state.device_peak - 24 * KIB  # three of them have to leave
    assert packed_bytes(free, state) == state.device_peak
    out = left_out(free, state, limit)
    assert out is not None and not len(out)
    tight = dataclasses.replace(free, device_limit=float(limit))
    found = shake(tight, Schedule(), 10.0, math.inf)
    assert found is not None and packs(tight, found)


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
