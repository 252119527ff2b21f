"""The joint program: stay, move, or compute again, chosen together.

    minimise    sum_k T_k + latency * copies
    subject to  T_k >= c_k + again_k
                T_k >= out_k / B_d2h,  in_k / B_h2d,  (out_k + in_k) / B_duplex
                flow is conserved in every tensor's network
                device_k + workspace_k <= D        (also while recomputing before k)
                host_k <= H
                a recomputation's roots are on the device where it happens

with one boolean vector for the edges of all networks, sparse rows, and the step's
segments k in program order. With the device limit as the objective instead, the same
rows give the least memory that any plan needs.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from ..errors import SolverError
from .network import Network
from .problem import Problem
from .schedule import Schedule


_MIB = float(2**20)
_MS = 1e3


class Status(enum.Enum):
    """How a plan was found. The values are for the user."""

    UNTOUCHED = "plain jax.jit fits the budget: nothing is changed"
    UNSUPPORTED = "the step could not be planned: it runs as jax.jit would"
    OPTIMAL = "solved to within the MIP gap"
    TIME_LIMIT = "the solver stopped at its time limit: its best incumbent is used"
    GREEDY = "the solver found no plan in time: a greedy plan is used"
    INFEASIBLE = "no plan meets the limits"


@dataclasses.dataclass(frozen=True)
class SolverOptions:
    """What the solver may take.

    - `time_limit`: seconds per solve.
    - `gap`: relative MIP gap at which it stops.
    """

    time_limit: float = 12.0
    gap: float = 0.01


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a solver answered.

    - `status`: see `Status`.
    - `schedule`: `None` if there is none.
    - `objective`, `bound`: seconds (or bytes, for least memory), found and proved.
    - `seconds`: wall time of building and solving.
    """

    status: Status
    schedule: Schedule | None
    objective: float
    bound: float
    seconds: float

    @property
    def gap(self) -> float:
        """Relative MIP gap."""
        if not np.isfinite(self.objective) or not np.isfinite(self.bound):
            return float("inf")
        return max(0.0, self.objective - self.bound) / max(1e-12, abs(self.objective))


class JointProgram:
    """The joint program of a problem, built once, solved at any limit.

    **Arguments:**

    - `problem`: the placement problem.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.network = network = Network(problem)
        count, edges = problem.segments, len(network.edges)
        self._x = x = cp.Variable(edges, boolean=True)
        self._least = cp.Variable()
        self._times = cp.Variable(count)
        # A lane is the running sum of its changes.
        step = sp.eye_array(count) - sp.eye_array(count, k=-1)
        held, host, again, out, into = (cp.Variable(count) for _ in range(5))
        compute = np.array(problem.compute)
        resident = np.array(problem.resident) / _MIB
        workspace = np.array(problem.workspace) / _MIB
        incidence = network.incidence()
        born = sp.csr_array(
            (
                np.ones(len(network.sources)),
                (range(len(network.sources)), network.sources),
            ),
            shape=(len(network.sources), edges),
        )
        self._rows = [
            incidence @ x == np.zeros(incidence.shape[0]),
            born @ x == 1,
            step @ held == network.changes("device") @ x / _MIB,
            step @ host == network.changes("host") @ x / _MIB,
            held + resident + workspace <= self._least,
            host <= problem.host_limit / _MIB,
        ]
        if network.recomputations:
            self._rows += [network.roots() @ x <= 0, self._while_again(held + resident)]
        # Rates are bytes over the link per second of compute.
        link = problem.link
        self._timing = [
            step @ again == _MS * (network.changes("again") @ x),
            step @ out == network.changes("out") @ x / link.d2h,
            step @ into == network.changes("in") @ x / link.h2d,
            self._times >= _MS * compute + again,
            self._times >= _MS * cp.multiply(compute, out),
            self._times >= _MS * cp.multiply(compute, into),
            self._times
            >= _MS
            / link.duplex
            * cp.multiply(compute, link.d2h * out + link.h2d * into),
        ]
        latency = link.latency * _MS * np.array(network.copies)
        self._makespan = cp.sum(self._times) + latency @ x

    def _while_again(self, held: Any) -> Any:
        # While t is computed again before segment k, what k makes is not there yet.
        problem, network = self.problem, self.network
        born = np.zeros(problem.segments)
        for tensor in problem.tensors:
            born[tensor.touches[0]] += tensor.nbytes
        at = [use for _, use, _ in network.recomputations]
        columns = [column for _, _, column in network.recomputations]
        extra = []
        for index, _, _ in network.recomputations:
            recipe = problem.tensors[index].recipe
            assert recipe is not None
            extra.append(recipe.workspace / _MIB)
        count = len(at)
        pick = sp.csr_array(
            (np.ones(count), (range(count), at)), shape=(count, problem.segments)
        )
        need = sp.csr_array(
            (extra, (range(count), columns)), shape=(count, len(network.edges))
        )
        missing = born[at] / _MIB
        return pick @ held + need @ self._x - missing <= self._least

    def fastest(self, limit: float, options: SolverOptions) -> Solution:
        """The fastest plan within a device limit.

        **Arguments:**

        - `limit`: device bytes of temporaries.
        - `options`: what the solver may take.

        **Returns:**

        A `Solution`; its objective is in seconds.
        """
        rows = [*self._rows, *self._timing, self._least == limit / _MIB]
        return self._solve(cp.Minimize(self._makespan), rows, options, 1 / _MS)

    def least_memory(self, options: SolverOptions) -> Solution:
        """The plan with the smallest device peak, however slow.

        **Arguments:**

        - `options`: what the solver may take.

        **Returns:**

        A `Solution`; its objective is in bytes.
        """
        return self._solve(cp.Minimize(self._least), self._rows, options, _MIB)

    def _solve(
        self, objective: Any, rows: list[Any], options: SolverOptions, unit: float
    ) -> Solution:
        start = time.perf_counter()
        if cp.HIGHS not in cp.installed_solvers():
            raise SolverError(
                "No solver: CVXPY does not find HiGHS. Install it with "
                "`pip install highspy`."
            )
        program = cp.Problem(objective, rows)
        try:
            program.solve(
                solver=cp.HIGHS,
                time_limit=options.time_limit,
                mip_rel_gap=options.gap,
            )
        except cp.SolverError:
            pass  # no usable answer: reported by the status below
        taken = time.perf_counter() - start
        nothing = float("inf")
        if program.status.startswith(cp.INFEASIBLE):
            return Solution(Status.INFEASIBLE, None, nothing, nothing, taken)
        if self._x.value is None or not self._is_sound(self._x.value):
            return Solution(Status.TIME_LIMIT, None, nothing, -nothing, taken)
        status = Status.OPTIMAL
        if program.status not in (cp.OPTIMAL,):
            status = Status.TIME_LIMIT
        found = float(program.value) * unit
        info = program.solver_stats.extra_stats
        bound = float(getattr(info, "mip_dual_bound", found / unit)) * unit
        schedule = self.network.decode(self._x.value)
        return Solution(status, schedule, found, min(bound, found), taken)

    def _is_sound(self, x: np.ndarray) -> bool:
        # A solver stopped early may hand back a vector that is no solution.
        if np.abs(x - np.round(x)).max(initial=0) > 1e-4:
            return False
        balance = self.network.incidence() @ np.round(x)
        return bool(np.abs(balance).max(initial=0) < 0.5)
