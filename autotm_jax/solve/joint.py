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
import warnings
from collections.abc import Callable, Iterator
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

    The linear relaxation is solved first. It is nearly integral: tensors whose path
    it leaves whole are fixed there, and the boolean program decides about the rest.
    Its bound is the relaxation's, so the reported gap is proved. Only if that leaves
    too large a gap is the whole boolean program solved.

    **Arguments:**

    - `problem`: the placement problem.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.network = Network(problem)
        self._owner = np.array([e.tensor for e in self.network.edges], dtype=int)
        self._relaxed = _Model(self.network, boolean=False)
        self._boolean = _Model(self.network, boolean=True)

    def fastest(self, limit: float, options: SolverOptions) -> Solution:
        """The fastest plan within a device limit.

        **Arguments:**

        - `limit`: device bytes of temporaries.
        - `options`: what the solver may take.

        **Returns:**

        A `Solution`; its objective is in seconds.
        """
        return self._solve(lambda m: m.fastest(limit), options, 1 / _MS)

    def least_memory(self, options: SolverOptions) -> Solution:
        """The plan with the smallest device peak, however slow.

        **Arguments:**

        - `options`: what the solver may take.

        **Returns:**

        A `Solution`; its objective is in bytes.
        """
        return self._solve(lambda m: m.least_memory(), options, _MIB)

    def roomiest(
        self, limit: float, makespan: float, options: SolverOptions
    ) -> Solution:
        """The plan that holds the fewest bytes, summed over all segments.

        Buffers that come and go leave an allocator more room than ones that fill
        every segment to the limit.

        **Arguments:**

        - `limit`: device bytes of temporaries.
        - `makespan`: seconds that the step may take.
        - `options`: what the solver may take.

        **Returns:**

        A `Solution`; its objective is in bytes.
        """
        return self._solve(lambda m: m.roomiest(limit, makespan), options, _MIB)

    def _solve(
        self,
        program: Callable[[_Model], cp.Problem],
        options: SolverOptions,
        unit: float,
    ) -> Solution:
        start = time.perf_counter()

        def left() -> float:
            return max(0.5, options.time_limit - (time.perf_counter() - start))

        def answer(status: Status, best: _Answer | None, bound: float) -> Solution:
            taken = time.perf_counter() - start
            if best is None:
                return Solution(status, None, float("inf"), bound * unit, taken)
            schedule = self.network.decode(best.x)
            objective = best.objective * unit
            bound = min(bound * unit, objective)
            return Solution(status, schedule, objective, bound, taken)

        relaxed = self._relaxed.run(program(self._relaxed), left(), options.gap)
        if relaxed is _INFEASIBLE:
            return answer(Status.INFEASIBLE, None, float("inf"))
        bound = -float("inf") if relaxed is None else relaxed.bound
        best: _Answer | None = None

        def is_good() -> bool:
            if best is None:
                return False
            return best.objective - bound <= options.gap * abs(best.objective) + 1e-9

        for rows in [] if relaxed is None else self._restrictions(relaxed):
            some = program(self._boolean)
            some = cp.Problem(some.objective, [*some.constraints, *rows])
            found = self._boolean.run(some, left() / 2, options.gap / 2)
            if found is None or found is _INFEASIBLE:
                continue
            if best is None or found.objective < best.objective:
                best = found
            if is_good():
                break
        if not is_good():
            every = self._boolean.run(program(self._boolean), left(), options.gap)
            if every is _INFEASIBLE:
                return answer(Status.INFEASIBLE, None, float("inf"))
            if every is not None:
                bound = max(bound, every.bound)
                if best is None or every.objective <= best.objective:
                    best = every
        if best is None:
            return answer(Status.TIME_LIMIT, None, bound)
        status = Status.OPTIMAL if is_good() else Status.TIME_LIMIT
        return answer(status, best, bound)

    def _restrictions(self, relaxed: _Answer) -> Iterator[list[Any]]:
        """Rows that make the boolean program small, the strictest first."""
        x = self._boolean.x
        # Tensors that the relaxation sends along one path stay on it.
        split = np.abs(relaxed.x - np.round(relaxed.x)) > 1e-6
        broken = np.zeros(len(self.problem.tensors), dtype=bool)
        broken[self._owner[split]] = True
        fixed = np.flatnonzero(~broken[self._owner])
        if fixed.size:
            yield [x[fixed] == np.round(relaxed.x[fixed])]
        # Columns that the relaxation leaves out and that would cost something.
        costly = relaxed.reduced_costs > _CHEAP_COLUMN * abs(relaxed.objective)
        out = np.flatnonzero(costly & (relaxed.x < 1e-9))
        if out.size:
            yield [x[out] == 0]


@dataclasses.dataclass(frozen=True)
class _Answer:
    """A solver's vector, its objective, and what it proved, in the model's units."""

    x: np.ndarray
    objective: float
    bound: float
    reduced_costs: np.ndarray


_INFEASIBLE = _Answer(np.zeros(0), float("inf"), float("inf"), np.zeros(0))

# A column whose reduced cost exceeds this part of the objective is left out of the
# first boolean programs.
_CHEAP_COLUMN = 2e-4


class _Model:
    """The rows of the joint program over one vector of columns."""

    def __init__(self, network: Network, boolean: bool):
        self.network = network
        problem = network.problem
        count, edges = problem.segments, len(network.edges)
        self._is_boolean = boolean
        self.x = x = cp.Variable(edges, boolean=boolean)
        # As rows, not as attributes of the variable: their duals are reduced costs.
        self._at_least, self._at_most = x >= 0, x <= 1
        self._least = cp.Variable()
        self._times = cp.Variable(count)
        # A lane is the running sum of its changes.
        step = sp.eye_array(count) - sp.eye_array(count, k=-1)
        held, host, again, out, into = (cp.Variable(count) for _ in range(5))
        compute = np.array(problem.compute)
        resident = problem.resident / _MIB
        workspace = np.array(problem.workspace) / _MIB
        incidence = network.incidence()
        sources = len(network.sources)
        born = sp.csr_array(
            (np.ones(sources), (range(sources), network.sources)),
            shape=(sources, edges),
        )
        limits = [] if boolean else [self._at_least, self._at_most]
        self._rows = [
            *limits,
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
        both = link.d2h * out + link.h2d * into
        self._timing = [
            step @ again == _MS * (network.changes("again") @ x),
            step @ out == network.changes("out") @ x / link.d2h,
            step @ into == network.changes("in") @ x / link.h2d,
            self._times >= _MS * compute + again,
            self._times >= _MS * cp.multiply(compute, out),
            self._times >= _MS * cp.multiply(compute, into),
            self._times >= _MS / link.duplex * cp.multiply(compute, both),
        ]
        latency = link.latency * _MS * np.array(network.copies)
        self._makespan = cp.sum(self._times) + latency @ x
        self._occupancy = cp.sum(held) / count

    def _while_again(self, held: Any) -> Any:
        # While t is computed again before segment k, what k makes is not there yet.
        network, problem = self.network, self.network.problem
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
        return pick @ held + need @ self.x - born[at] / _MIB <= self._least

    def fastest(self, limit: float) -> cp.Problem:
        """Least makespan within a device limit, in milliseconds."""
        rows = [*self._rows, *self._timing, self._least == limit / _MIB]
        return cp.Problem(cp.Minimize(self._makespan), rows)

    def least_memory(self) -> cp.Problem:
        """Least device peak, in MiB."""
        return cp.Problem(cp.Minimize(self._least), self._rows)

    def roomiest(self, limit: float, makespan: float) -> cp.Problem:
        """Least mean of held MiB within a device limit and a makespan in seconds."""
        rows = [*self._rows, *self._timing, self._least == limit / _MIB]
        rows.append(self._makespan <= makespan * _MS)
        return cp.Problem(cp.Minimize(self._occupancy), rows)

    def run(
        self, program: cp.Problem, time_limit: float, gap: float
    ) -> _Answer | None:
        """Solves; `None` without a usable vector, `_INFEASIBLE` if there is none."""
        if cp.HIGHS not in cp.installed_solvers():
            raise SolverError(
                "No solver: CVXPY does not find HiGHS. Install it with "
                "`pip install highspy`."
            )
        options: dict[str, Any] = {"time_limit": time_limit}
        if self._is_boolean:
            options["mip_rel_gap"] = gap
        with warnings.catch_warnings():
            # "Solution may be inaccurate": stopped at a limit, judged below.
            warnings.simplefilter("ignore", UserWarning)
            try:
                program.solve(solver=cp.HIGHS, **options)
            except cp.SolverError:
                return None
        if program.status.startswith(cp.INFEASIBLE):
            return _INFEASIBLE
        if self.x.value is None or not self._is_path(self.x.value):
            return None
        objective = float(program.objective.value)
        info = program.solver_stats.extra_stats
        bound = float(getattr(info, "mip_dual_bound", objective))
        x = np.asarray(self.x.value)
        if self._is_boolean:
            return _Answer(np.round(x), objective, min(bound, objective), x)
        if program.status != cp.OPTIMAL:
            return None
        reduced = np.abs(np.asarray(self._at_least.dual_value))
        return _Answer(x, objective, objective, reduced)

    def _is_path(self, x: np.ndarray) -> bool:
        # A solver stopped early may hand back a vector that is no solution.
        if self._is_boolean and np.abs(x - np.round(x)).max(initial=0) > 1e-4:
            return False
        balance = self.network.incidence() @ x
        born = x[self.network.sources]
        return bool(np.abs(balance).max(initial=0) < 1e-3 and (born > 0.999).all())
