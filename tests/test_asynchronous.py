"""The asynchronous program: what it counts, and where it begins."""

import dataclasses

import pytest

from autotm_jax.solve import (
    AsynchronousProgram,
    Deadline,
    Fetch,
    Schedule,
    SolverOptions,
    Status,
    Store,
    SynchronousProgram,
    Tensor,
    replay,
)
from autotm_jax.solve.search import Search

from .problems import KIB, LINK, hard_problem, limited, problem


def test_both_directions_add_up():
    # One tensor is stored beside the segment beside which another one is fetched.
    tensors = [Tensor(0, 100 * KIB, (3, 6)), Tensor(1, 80 * KIB, (0, 5))]
    known = problem(tensors, 7)
    schedule = Schedule(
        (Store(0, 3, 5), Store(1, 0, 2)), (Fetch(0, 6, 6), Fetch(1, 4, 5))
    )
    state = replay(known, schedule)
    assert not state.faults
    program = AsynchronousProgram(known)
    out, into = 100 * KIB / LINK.d2h, 80 * KIB / LINK.h2d
    waits = 100 * KIB / LINK.h2d + 4 * LINK.latency
    beside = max(80 * KIB / LINK.d2h, 1e-3) + out + into
    seconds = 5e-3 + beside + waits
    assert program.seconds_of(schedule, state) == pytest.approx(seconds)
    assert state.makespan < seconds
    # So it does of a plan that a search begins with.
    options = SolverOptions(time_limit=0.0)
    limit = 200.0 * KIB
    search = Search(program, limit, options, Deadline(0.0), schedule)
    assert search.run().objective == pytest.approx(seconds)


def test_where_the_solver_has_no_time_copies_are_laid_beside_segments():
    free = dataclasses.replace(hard_problem(40).moved_only, configurations={})
    known = limited(free, 0.5)
    limit = known.device_limit
    waiting = SynchronousProgram(known).fastest(limit, SolverOptions(10.0))
    found = AsynchronousProgram(known).fastest(limit, SolverOptions(10.0))
    assert found.schedule is not None
    state = replay(known, found.schedule)
    assert not state.faults
    assert state.makespan <= found.objective * (1 + 1e-9)
    assert found.bound <= found.objective < 0.9 * waiting.objective
    is_proved = found.gap <= 0.01 + 1e-9
    assert (found.status is Status.OPTIMAL) == is_proved
