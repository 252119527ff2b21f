"""A CVXPY program as the matrices that a solver gets, and the way back.

`Problem.get_problem_data` and `Problem.unpack_results` are CVXPY's documented way to
call a solver oneself. What they hold and take is what CVXPY's interface to HiGHS makes
of it.
"""

from __future__ import annotations

import types
import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from .worker import Outcome


# What CVXPY sums up as the number of iterations.
_COUNTS = ("ipm", "crossover", "pdlp", "qp", "simplex")


class Matrices:
    """The matrices of a program at the present values of its parameters.

    **Arguments:**

    - `program`: a linear program with or without integers.
    """

    def __init__(self, program: cp.Problem):
        self._program = program
        # Any, as CVXPY's annotations allow for chains that are not there.
        parts: Any = program.get_problem_data(cp.HIGHS)
        self._data, self._chain, self._inverse = parts

    def problem(self, options: dict[str, Any]) -> dict[str, Any]:
        """The problem, as `highs.py` takes it.

        **Arguments:**

        - `options`: of HiGHS, by name.
        """
        data = self._data
        cost, matrix, right = self._rows()
        left = right.copy()
        left[data["dims"].zero :] = -np.inf
        lower = np.full(len(cost), -np.inf)
        upper = np.full(len(cost), np.inf)
        if data.get("lower_bounds") is not None:
            lower[:] = data["lower_bounds"]
        if data.get("upper_bounds") is not None:
            upper[:] = data["upper_bounds"]
        boolean = np.array(data["bool_vars_idx"], dtype=int)
        lower[boolean] = np.maximum(lower[boolean], 0.0)
        upper[boolean] = np.minimum(upper[boolean], 1.0)
        integer = np.zeros(len(cost), dtype=bool)
        integer[[*boolean, *data["int_vars_idx"]]] = True
        rows = _into_bounds(matrix, left, right, lower, upper)
        kept = np.full(len(cost), True)
        if integer.any():
            kept = (lower != 0.0) | (upper != 0.0)
        self._kept = kept
        matrix = matrix[:, kept].tocsr()[rows].tocsc()
        return {
            "cost": cost[kept],
            "lower": lower[kept],
            "upper": upper[kept],
            "row_lower": left[rows],
            "row_upper": right[rows],
            "indptr": matrix.indptr,
            "indices": matrix.indices,
            "data": matrix.data,
            "integer": np.flatnonzero(integer[kept]),
            "options": options,
        }

    def positions(self, *vectors: cp.Variable) -> tuple[np.ndarray, ...]:
        """Where the elements of vectors are among the variables of the problem.

        **Arguments:**

        - `vectors`: of a program without integers. Their values are lost.

        **Returns:**

        For each the number of a variable per element.
        """
        self.unpack(Outcome("kOptimal", np.arange(len(self._kept), dtype=float), None))
        return tuple(np.asarray(v.value).round().astype(int) for v in vectors)

    def _rows(self) -> tuple[np.ndarray, Any, np.ndarray]:
        """The costs, and `A x == b` followed by `A x <= b`."""
        data = self._data
        if "q" in data:  # CVXPY 1.7 takes a linear program for a quadratic one
            cost, matrix = data["q"], sp.vstack([data["A"], data["F"]]).tocsc()
            right = np.concatenate([data["b"], data["G"]])
        else:
            cost, matrix, right = data["c"], data["A"].tocsc(), data["b"]
        matrix.eliminate_zeros()
        return cost, matrix, right

    def unpack(self, outcome: Outcome) -> None:
        """Gives the program's variables their values.

        **Arguments:**

        - `outcome`: of the problem, with a solution.
        """
        assert outcome.x is not None
        values = np.zeros(len(self._kept))
        values[self._kept] = outcome.x
        _, _, right = self._rows()
        duals = np.zeros(len(right))  # not looked at
        result = {
            # A solution, whatever else the solver says of it.
            "model_status": "kOptimal"
            if outcome.status == "kOptimal"
            else "kTimeLimit",
            "solution": types.SimpleNamespace(col_value=values, row_dual=duals),
            "info": types.SimpleNamespace(
                objective_function_value=outcome.objective,
                **{f"{kind}_iteration_count": 0 for kind in _COUNTS},
            ),
            "run_time": 0.0,
        }
        with warnings.catch_warnings():
            # "Solution may be inaccurate": stopped at a limit.
            warnings.simplefilter("ignore", UserWarning)
            self._program.unpack_results(result, self._chain, self._inverse)


def _into_bounds(
    matrix: Any,
    left: np.ndarray,
    right: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> np.ndarray:
    """Makes bounds of the rows with one variable, and says which rows remain."""
    rows = matrix.tocsr()
    (alone,) = np.nonzero(np.diff(rows.indptr) == 1)
    column, factor = rows.indices[rows.indptr[alone]], rows.data[rows.indptr[alone]]
    ends = np.sort([left[alone] / factor, right[alone] / factor], axis=0)
    least, most = lower.copy(), upper.copy()
    np.maximum.at(least, column, ends[0])
    np.minimum.at(most, column, ends[1])
    remain = np.full(len(left), True)
    # That rows contradict each other is for the solver to say.
    if (least <= most).all():
        lower[:], upper[:] = least, most
        remain[alone] = False
    return remain
