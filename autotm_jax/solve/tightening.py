"""A relaxation that was solved, to be solved again with columns that are decided.

The solver's process keeps it, with the basis in which it ended. From there the next
optimum is a few steps of the dual simplex method away, where a solve from nothing takes
thousands.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from .answer import INFEASIBLE, Answer, Posed
from .highs import UNKNOWN
from .model import NAMES, NO_SOLUTION
from .worker import WORKER


# From a basis that is nearly optimal. What presolving would leave has none.
_FROM_A_BASIS = {"solver": "simplex", "presolve": "off"}

OPEN = -1.0
"""Of a column that is not decided."""


class Tightening:
    """Solves a relaxation again.

    **Arguments:**

    - `answer`, `posed`: what was found, and for which problem.
    - `limit`: the device bytes that it was solved for.
    """

    def __init__(self, answer: Answer, posed: Posed, limit: float):
        self.limit, self._answer, self._posed = limit, answer, posed
        self._problem: dict[str, Any] = posed.problem
        self._variables = posed.variables
        self._decided = np.full(len(self._variables), OPEN)
        self._options = self._problem["options"] | _FROM_A_BASIS

    def run(self, decided: np.ndarray, seconds: float) -> Answer | None:
        """Solves.

        **Arguments:**

        - `decided`: what each column is, or `OPEN`.
        - `seconds`: wall time to spend at most.

        **Returns:**

        An `Answer`, without reduced costs; `None` if there was too little time,
        `INFEASIBLE` if there is no such vector.
        """
        end = time.perf_counter() + seconds
        lower, upper = self._problem["lower"].copy(), self._problem["upper"].copy()
        known = decided != OPEN
        lower[self._variables[known]] = upper[self._variables[known]] = decided[known]
        changed = self._variables[decided != self._decided]
        again = {
            "again": self._problem["name"],
            "columns": changed,
            "lower": lower[changed],
            "upper": upper[changed],
            "options": self._options,
        }
        self._decided = decided.copy()
        outcome = WORKER.solve(again, seconds)
        if outcome.status == UNKNOWN:
            # Another relaxation was solved meanwhile, or the process has ended. Its
            # optimum is what to begin with. An idle process may still have it, as it
            # was some time ago: so it gets another name.
            self._problem = self._problem | {"name": next(NAMES)}
            again["again"] = self._problem["name"]
            WORKER.solve(self._problem, end - time.perf_counter())
            (every,) = np.nonzero(known)
            every = self._variables[every]
            again |= {"columns": every, "lower": lower[every], "upper": upper[every]}
            outcome = WORKER.solve(again, end - time.perf_counter())
        if outcome.status in NO_SOLUTION:
            return INFEASIBLE
        if outcome.status != "kOptimal" or outcome.x is None:
            return None
        objective = outcome.objective + self._posed.constant
        return dataclasses.replace(
            self._answer,
            x=outcome.x[self._variables],
            picks=self._posed.picks(outcome.x),
            objective=objective,
            bound=objective,
            reduced_costs=np.zeros(0),
        )
