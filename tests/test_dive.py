"""Tensors that a relaxation divides, decided one after the other."""

import dataclasses

import numpy as np
import pytest

from autotm_jax.solve import SolverOptions, replay
from autotm_jax.solve import dive as diving
from autotm_jax.solve.answer import ANYTHING, INFEASIBLE, Answer
from autotm_jax.solve.dive import dive
from autotm_jax.solve.tightening import OPEN

from .problems import hard_problem, limit_between, random_problem
from .relaxations import EXACT, relaxation


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("part", [0.2, 0.6])
def test_it_ends_with_a_plan_or_with_what_is_divided(seed: int, part: float):
    problem = random_problem(seed)
    limit = limit_between(problem, part)
    program, relaxed, tightening = relaxation(problem, limit)
    end = dive(program.columns, relaxed, tightening, 60.0)
    assert end.objective >= relaxed.objective * (1 - 1e-6)
    if program.columns.divided(end.x).any():
        return
    found = program.decoded(np.round(end.x), end.picks)
    state = replay(dataclasses.replace(problem, device_limit=limit), found)
    optimum = program.fastest(limit, EXACT)
    if not state.faults:
        assert state.makespan >= optimum.objective * (1 - 2e-5)


def test_it_finds_plans_where_a_relaxation_divides_many():
    problem = hard_problem(12)
    limit = limit_between(problem, 0.4)
    program, relaxed, tightening = relaxation(problem, limit)
    assert program.columns.divided(relaxed.x).sum() > 3
    end = dive(program.columns, relaxed, tightening, 60.0)
    assert not program.columns.divided(end.x).any()
    found = program.decoded(np.round(end.x), end.picks)
    state = replay(dataclasses.replace(problem, device_limit=limit), found)
    assert state.faults == ()
    best = program.fastest(limit, SolverOptions(time_limit=20.0))
    assert state.makespan <= 1.1 * best.objective


def test_it_ends_with_its_time_and_with_what_is_too_slow():
    problem = hard_problem(12)
    limit = limit_between(problem, 0.4)
    program, relaxed, tightening = relaxation(problem, limit)
    rest = program.columns, relaxed, tightening
    assert dive(*rest, 0.0) is relaxed
    assert dive(*rest, 60.0, below=relaxed.objective) is relaxed
    part = dive(*rest, 60.0, below=relaxed.objective * 1.001)
    assert part.objective >= relaxed.objective * 1.001
    assert part.objective <= dive(*rest, 60.0, below=ANYTHING).objective


def test_what_is_impossible_is_taken_back(monkeypatch: pytest.MonkeyPatch):
    # Everything is rounded up at once, for which there is no room.
    monkeypatch.setattr(diving, "_BYTES", 1e9)
    monkeypatch.setattr(diving, "_PART", 1.0)
    problem = hard_problem(12)
    limit = limit_between(problem, 0.2)
    program, relaxed, tightening = relaxation(problem, limit)
    asked: list[tuple[int, bool]] = []
    run = tightening.run

    def noted(decided: np.ndarray, seconds: float) -> Answer | None:
        found = run(decided, seconds)
        asked.append((int((decided != OPEN).sum()), found is INFEASIBLE))
        return found

    monkeypatch.setattr(tightening, "run", noted)
    dive(program.columns, relaxed, tightening, 60.0)
    assert asked[0][1] and not all(impossible for _, impossible in asked)
    first = next(count for count, impossible in asked if not impossible)
    assert first < asked[0][0]
