"""A relaxation solved again with columns that are decided."""

import numpy as np
import pytest

from autotm_jax.solve import model
from autotm_jax.solve import tightening as tightenings
from autotm_jax.solve.answer import INFEASIBLE
from autotm_jax.solve.tightening import OPEN
from autotm_jax.solve.worker import WORKER, Worker

from .problems import hard_problem, limit_between
from .relaxations import EXACT, relaxation


@pytest.mark.parametrize("kept", ["kept", "not kept", "kept here"])
def test_a_relaxation_is_tightened_as_if_it_were_solved_anew(
    kept: str, monkeypatch: pytest.MonkeyPatch
):
    if kept == "kept here":  # there can be no process
        here = Worker(None)
        monkeypatch.setattr(model, "WORKER", here)
        monkeypatch.setattr(tightenings, "WORKER", here)
    problem = hard_problem(8)
    limit = limit_between(problem, 0.5)
    program, relaxed, tightening = relaxation(problem, limit)
    columns = program.columns
    (divided,) = np.nonzero(columns.divided(relaxed.x))
    decided, upper = np.full(len(columns.edges), OPEN), np.ones(len(columns.edges))
    path = columns.main_path(int(divided[0]), relaxed.x)
    decided[columns.owner == divided[0]] = upper[columns.owner == divided[0]] = 0.0
    decided[path] = upper[path] = 1.0
    if kept == "not kept":
        WORKER.close()
    found = tightening.run(decided, 60.0)
    assert found is not None and found is not INFEASIBLE
    assert (found.x[path] > 1 - 1e-6).all()
    anew = program.relaxed.run(limit, EXACT, upper)
    assert anew is not None
    assert found.objective == pytest.approx(anew.objective)
    nothing = np.where(columns.owner == divided[0], 0.0, OPEN)
    assert tightening.run(nothing, 60.0) is INFEASIBLE
    assert tightening.run(decided, 0.0) is None


def test_what_another_process_kept_of_it_is_not_gone_on_with():
    problem = hard_problem(8)
    limit = limit_between(problem, 0.5)
    program, relaxed, tightening = relaxation(problem, limit)
    columns = program.columns
    first, second = np.flatnonzero(columns.divided(relaxed.x))[:2]

    def taking(*tensors: int) -> np.ndarray:
        decided = np.full(len(columns.edges), OPEN)
        for tensor in tensors:
            decided[columns.owner == tensor] = 0.0
            decided[columns.main_path(int(tensor), relaxed.x)] = 1.0
        return decided

    found = tightening.run(taking(first), 60.0)
    assert found is not None and found is not INFEASIBLE
    # Another thread has the process, and gives it back after it was missed.
    away, WORKER._idle = WORKER._idle, None
    found = tightening.run(taking(second), 60.0)
    assert found is not None and found is not INFEASIBLE
    WORKER.close()
    WORKER._idle = away
    found = tightening.run(taking(second), 60.0)
    assert found is not None and found is not INFEASIBLE
    _, _, anew = relaxation(problem, limit)
    expected = anew.run(taking(second), 60.0)
    assert expected is not None
    assert found.objective == pytest.approx(expected.objective)
