"""A boolean program as CVXPY has it, and what HiGHS finds of it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from ..errors import SolverError
from .answer import ANYTHING, INFEASIBLE, MIB, Answer, Posed
from .columns import Columns
from .matrices import Matrices
from .rows import Rows, Timing
from .schedule import Pick
from .solution import SolverOptions
from .worker import WORKER


# From so many columns on, the interior point method is the faster one for relaxations,
# several times. (For the least memory the simplex method always is.)
_INTERIOR = 10_000

# What HiGHS calls it if there is no solution. No program here is unbounded.
NO_SOLUTION = ("kInfeasible", "kUnboundedOrInfeasible")

# Of relaxations that are solved: a solver's process keeps the last one by its name.
NAMES = itertools.count()

# What is taken by less than that is not taken.
_NOT_TAKEN = 1e-9


class Model:
    """The boolean program of a formulation, or its relaxation.

    - `rows`: with its variables.
    - `failure`: what a solver said that crashed.
    - `posed`: of a relaxation that was solved last.

    **Arguments:**

    - `columns`: of its networks.
    - `timing`: its rows and objective.
    - `boolean`: whether it is the program or its relaxation.
    - `summed`, `tie`: as `Rows` takes them.
    """

    def __init__(
        self,
        columns: Columns,
        timing: Timing,
        boolean: bool,
        summed: bool = False,
        tie: sp.csr_array | None = None,
    ):
        WORKER.prepare()  # while the program is built
        self.rows = Rows(columns, boolean, summed, tie)
        self.failure = ""
        self.posed: Posed | None = None
        # What a column may be at most, and the device limit in MiB. As parameters they
        # leave a program as it is compiled.
        edges = len(columns.edges)
        self._upper = cp.Parameter(edges, nonneg=True, value=np.ones(edges))
        self._limit = cp.Parameter(nonneg=True)
        # What the objective has to be below.
        self._below = cp.Parameter(value=ANYTHING)
        self._rows = [self.rows.x <= self._upper, *self.rows.all]
        self._timing, self._makespan = timing(self.rows)

    @functools.cached_property
    def _fastest(self) -> cp.Problem:
        """Least makespan within a device limit, in milliseconds."""
        rows = [*self._rows, *self._timing, self.rows.least == self._limit]
        if self.rows.is_boolean:
            rows.append(self._makespan <= self._below)
        return cp.Problem(cp.Minimize(self._makespan), rows)

    @functools.cached_property
    def _least_memory(self) -> cp.Problem:
        """Least device peak, in MiB."""
        rows = list(self._rows)
        if self.rows.is_boolean:
            rows.append(self.rows.least <= self._below)
        return cp.Problem(cp.Minimize(self.rows.least), rows)

    def run(
        self,
        limit: float | None,
        options: SolverOptions,
        upper: np.ndarray | None = None,
        below: float = ANYTHING,
    ) -> Answer | None:
        """Solves.

        **Arguments:**

        - `limit`: device bytes, for the least makespan; `None` for the least memory.
        - `options`: what the solver may take; its seconds count from this call.
        - `upper`: per column, whether it may be taken; all of them by default.
        - `below`: what the objective of a boolean program has to be below, in its unit.
            This is how a search starts from what it has: given a vector to start
            from, HiGHS 1.16.0 takes some for optimal that are not, and 1.15.1 loses
            more time than it saves.

        **Returns:**

        An `Answer`; `None` without a usable vector, `INFEASIBLE` if there is none.
        """
        if cp.HIGHS not in cp.installed_solvers():
            raise SolverError(
                "No solver: CVXPY does not find HiGHS. Install it with "
                "`pip install highspy`."
            )
        start = time.perf_counter()
        self.failure = ""
        if options.time_limit <= 0:
            return None
        every = np.ones(len(self.rows.columns.edges))
        self._upper.value = every if upper is None else upper.astype(float)
        if limit is not None:
            self._limit.value = max(0.0, limit / MIB)
        self._below.value = below
        taken: dict[str, Any] = {}
        if options.threads is not None:
            taken["threads"] = options.threads
        if self.rows.is_boolean:
            taken["mip_rel_gap"] = options.gap
        elif limit is not None and len(every) >= _INTERIOR:
            taken["solver"] = "ipm"
        program = self._least_memory if limit is None else self._fastest
        try:
            matrices = Matrices(program)
            problem = matrices.problem(taken)
            if not self.rows.is_boolean:
                problem["name"] = next(NAMES)
            left = options.time_limit - (time.perf_counter() - start)
            if left <= 0:
                return None
            outcome = WORKER.solve(problem, left)
            self.failure = outcome.failure
            if outcome.status in NO_SOLUTION:
                return INFEASIBLE
            if outcome.x is None:
                return None
            posed = None if self.rows.is_boolean else self._posed(matrices, problem)
            matrices.unpack(outcome)
        except Exception as error:  # noqa: BLE001 - whatever a solver does, there are others
            self.failure = f"{type(error).__name__}: {error}"
            return None
        if self.rows.x.value is None or not self._is_path(self.rows.x.value):
            return None
        value: Any = program.objective.value
        objective = float(value)
        if not np.isfinite(objective):
            return None
        x = np.asarray(self.rows.x.value)
        # The solver does not know of constants in the objective.
        constant = objective - outcome.objective
        if self.rows.is_boolean:
            bound = min(outcome.bound + constant, objective)
            return Answer(np.round(x), self._picks(), objective, bound, x)
        if outcome.status != "kOptimal" or outcome.reduced_costs is None:
            return None
        assert posed is not None
        self.posed = dataclasses.replace(posed, constant=constant)
        # What is taken costs nothing more: where it has to be, the solver says what it
        # would save to take less.
        costs = outcome.reduced_costs[posed.variables]
        reduced = np.where(x > _NOT_TAKEN, 0.0, np.maximum(costs, 0.0))
        return Answer(x, self._picks(), objective, objective, reduced)

    def _posed(self, matrices: Matrices, problem: dict[str, Any]) -> Posed:
        if self.rows.a is None:
            (variables,) = matrices.positions(self.rows.x)
            return Posed(problem, variables, {}, 0.0)
        variables, chosen = matrices.positions(self.rows.x, self.rows.a)
        picks = [Pick(k, number) for k, number, _ in self.rows.variants]
        variants = dict(zip(map(int, chosen), picks, strict=True))
        return Posed(problem, variables, variants, 0.0)

    def _picks(self) -> tuple[Pick, ...]:
        if self.rows.a is None:
            return ()
        return tuple(
            Pick(k, number)
            for (k, number, _), chosen in zip(
                self.rows.variants, self.rows.a.value, strict=True
            )
            if chosen > 0.5
        )

    def _is_path(self, x: np.ndarray) -> bool:
        # A solver stopped early may hand back a vector that is no solution.
        if self.rows.is_boolean and np.abs(x - np.round(x)).max(initial=0) > 1e-4:
            return False
        balance = self.rows.columns.incidence @ x
        born = self.rows.born() @ x
        return bool(np.abs(balance).max(initial=0) < 1e-3 and (born > 0.999).all())
