"""A relaxation solved again with columns that are decided."""

import numpy as np
import pytest

from autotm_jax.solve.model import INFEASIBLE
from autotm_jax.solve.tightening import OPEN
from autotm_jax.solve.worker import WORKER

from .problems import hard_problem, limit_between
from .relaxations import EXACT, relaxation


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_relaxation_is_tightened_as_if_it_were_solved_anew(is_kept: bool):
    problem = hard_problem(8)
    limit = limit_between(problem, 0.5)
    program, relaxed, tightening = relaxation(problem, limit)
    columns = program.columns
    (divided,) = np.nonzero(columns.divided(relaxed.x))
    decided, upper = np.full(len(columns.edges), OPEN), np.ones(len(columns.edges))
    path = columns.main_path(int(divided[0]), relaxed.x)
    decided[columns.owner == divided[0]] = upper[columns.owner == divided[0]] = 0.0
    decided[path] = upper[path] = 1.0
    if not is_kept:
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
