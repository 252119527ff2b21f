"""The joint program: stay, move, or compute again, chosen together.

    minimise    sum_k T_k + sum of what no compute hides of each copy
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
import functools
import time
import warnings
from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from ..errors import SolverError
from .checker import replay
from .improve import anneal, descend
from .network import Network
from .policies import offload_everything
from .problem import Problem
from .schedule import Schedule


_MIB = float(2**20)
_MS = 1e3


class Status(enum.Enum):
    """How a plan was found. The values are for the user."""

    UNTOUCHED = "plain jax.jit fits the budget: nothing is changed"
    UNSUPPORTED = "the step could not be planned: it runs as jax.jit would"
    OPTIMAL = "solved to within the MIP gap"
    REPACKED = "solved, then changed until it packs: no gap is proved for that"
    TIME_LIMIT = "the solver stopped at its time limit: its best incumbent is used"
    GREEDY = "the solver found no plan in time: a greedy plan is used"
    INFEASIBLE = "no plan meets the limits"


@dataclasses.dataclass(frozen=True)
class SolverOptions:
    """What the solver may take.

    - `time_limit`: seconds for one order of the step; a tight budget may need two.
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
    - `seconds`: wall time of the search.
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

    The linear relaxation is solved first: it is fast, and its optimum is the bound
    that gaps are measured from. It is nearly integral, so boolean solutions are looked
    for near it: with boolean programs that leave only what the relaxation splits, or
    only the columns that cost nothing there, then by a local search that starts from
    the relaxation rounded to whole tensors. Only if the gap is still too large is the
    whole boolean program solved.

    **Arguments:**

    - `problem`: the placement problem. Its device limit is not used.
    """

    def __init__(self, problem: Problem):
        self.problem = dataclasses.replace(problem, device_limit=float("inf"))
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
        # That a relaxation is infeasible takes a solver longer to see than it takes
        # to find the least memory of all.
        is_tight = limit < _TIGHT * self.problem.floor()
        nothing = float("inf")
        found = Solution(Status.INFEASIBLE, None, nothing, nothing, 0.0)
        if not is_tight or limit >= self.least_bound * (1 - 1e-6) - 1:
            found = _Search(self, limit, options).run()
        if found.schedule is not None:
            return found
        return self._at_once(limit, found)

    def _at_once(self, limit: float, found: Solution) -> Solution:
        # Copies that hide behind nothing are no columns of the networks: where these
        # have no plan there may still be one, if a slow one.
        start = time.perf_counter()
        problem = dataclasses.replace(self.problem, device_limit=limit)
        schedule = descend(problem, offload_everything(problem), _ANNEAL_SECONDS)
        if schedule is None:
            return found
        seconds = replay(problem, schedule).makespan
        taken = found.seconds + time.perf_counter() - start
        bound = sum(problem.compute)
        return Solution(Status.TIME_LIMIT, schedule, seconds, bound, taken)

    @functools.cached_property
    def least_bound(self) -> float:
        """Device bytes of temporaries that no path of the networks goes below."""
        model = self._relaxed
        answer = model.run(model.least_memory(), _BOUND_SECONDS, 0.0)
        if answer is None or answer is _INFEASIBLE:
            return float(self.problem.floor())
        return answer.bound * _MIB

    def relaxation(self, limit: float) -> float | None:
        """Seconds of the step if tensors could be divided: what plans cannot reach.

        **Arguments:**

        - `limit`: device bytes of temporaries.

        **Returns:**

        Seconds, infinite if even so nothing keeps the limit; or `None` if the solver
        took too long.
        """
        model = self._relaxed
        answer = model.run(model.fastest(limit), _BOUND_SECONDS, 0.0)
        return None if answer is None else answer.objective / _MS

    def least_memory(self, options: SolverOptions) -> Solution:
        """The plan with the smallest device peak, however slow.

        **Arguments:**

        - `options`: what the solver may take.

        **Returns:**

        A `Solution`; its objective is in bytes.
        """
        return _Search(self, None, options).run()


class _Search:
    """One search for a boolean solution: fastest within a limit, or least memory."""

    def __init__(
        self, joint: JointProgram, limit: float | None, options: SolverOptions
    ):
        self.joint, self.limit, self.options = joint, limit, options
        self.relaxed, self.boolean = joint._relaxed, joint._boolean
        self.owner, self.network = joint._owner, joint.network
        self.start = time.perf_counter()
        self.unit = 1 / _MS if limit is not None else _MIB
        self.best: _Answer | None = None
        self.bound = -float("inf")

    def run(self) -> Solution:
        relaxed = self.relaxed.run(
            self._program(self.relaxed), self._left(), self.options.gap
        )
        if relaxed is _INFEASIBLE:
            return self._solution(Status.INFEASIBLE)
        if relaxed is not None:
            self.bound = relaxed.bound
            for found in self._attempts(relaxed):
                self._consider(found)
                if self._is_good() or (self.best and self._left() < 1.0):
                    break
        if not self._is_good() and (self.best is None or self._left() >= 1.0):
            program = self._program(self.boolean)
            every = self.boolean.run(program, self._left(), self.options.gap)
            if every is _INFEASIBLE and self.best is None:
                return self._solution(Status.INFEASIBLE)
            if every is not None and every is not _INFEASIBLE:
                self.bound = max(self.bound, every.bound)
                self._consider(every)
        return self._solution(Status.OPTIMAL if self._is_good() else Status.TIME_LIMIT)

    def _program(self, model: _Model) -> cp.Problem:
        if self.limit is None:
            return model.least_memory()
        return model.fastest(self.limit)

    def _left(self) -> float:
        taken = time.perf_counter() - self.start
        return max(0.5, self.options.time_limit - taken)

    def _consider(self, found: _Answer | None) -> None:
        if found is None or found is _INFEASIBLE:
            return
        if self.best is None or found.objective < self.best.objective:
            self.best = found

    def _is_good(self) -> bool:
        if self.best is None:
            return False
        allowed = self.options.gap * abs(self.best.objective) + 1e-9
        return self.best.objective - self.bound <= allowed

    def _solution(self, status: Status) -> Solution:
        taken = time.perf_counter() - self.start
        bound = self.bound * self.unit
        if self.best is None:
            return Solution(status, None, float("inf"), bound, taken)
        schedule = self.best.schedule or self.network.decode(self.best.x)
        objective = self.best.objective * self.unit
        return Solution(status, schedule, objective, min(bound, objective), taken)

    def _attempts(self, relaxed: _Answer) -> Iterator[_Answer | None]:
        """Boolean solutions near the relaxation, the cheapest to find first."""
        x = self.boolean.x
        broken = self._split_tensors(relaxed.x)
        fixed = np.flatnonzero(~broken[self.owner])
        costly = relaxed.reduced_costs > _CHEAP_COLUMN * abs(relaxed.objective)
        out = np.flatnonzero(costly & (relaxed.x < 1e-9))
        # Only what is split; and whatever costs nothing where the relaxation is.
        nearby = [x[fixed] == np.round(relaxed.x[fixed]), x[out] == 0]
        first, second = nearby[::-1] if broken.mean() > _MANY_SPLIT else nearby
        yield self._restricted([first], _NEARBY_SECONDS)
        if self.limit is not None and broken.mean() > _MANY_SPLIT:
            yield self._annealed(relaxed, self.limit)
        yield self._restricted([second], _NEARBY_SECONDS)

    def _restricted(self, rows: list[Any], seconds: float) -> _Answer | None:
        program = self._program(self.boolean)
        program = cp.Problem(program.objective, [*program.constraints, *rows])
        return self.boolean.run(program, seconds, _GAP_NEARBY)

    def _annealed(self, relaxed: _Answer, limit: float) -> _Answer | None:
        # From every tensor's main path; outside of the network, so with finer windows.
        problem = dataclasses.replace(self.joint.problem, device_limit=limit)
        rounded = np.zeros(len(self.owner))
        for tensor in range(len(problem.tensors)):
            rounded[self.network.main_path(tensor, relaxed.x)] = 1.0
        start = self.network.decode(rounded)
        schedule = anneal(problem, start, max(_ANNEAL_SECONDS, self._left() / 2))
        if schedule is None:
            return None
        objective = replay(problem, schedule).makespan * _MS
        return _Answer(rounded, objective, self.bound, rounded, schedule)

    def _split_tensors(self, x: np.ndarray) -> np.ndarray:
        split = np.abs(x - np.round(x)) > 1e-6
        broken = np.zeros(len(self.joint.problem.tensors), dtype=bool)
        broken[self.owner[split]] = True
        return broken


@dataclasses.dataclass(frozen=True)
class _Answer:
    """A solver's vector, its objective, and what it proved, in the model's units."""

    x: np.ndarray
    objective: float
    bound: float
    reduced_costs: np.ndarray
    schedule: Schedule | None = None


_INFEASIBLE = _Answer(np.zeros(0), float("inf"), float("inf"), np.zeros(0))

# A column whose reduced cost exceeds this part of the objective is left out of the
# first boolean programs.
_CHEAP_COLUMN = 2e-4

# Seconds that an annealing gets at least.
_ANNEAL_SECONDS = 3.0

# With more split tensors than this fraction, the program of those is no small one.
_MANY_SPLIT = 0.15

# Seconds for a program near the relaxation, and the relative MIP gap at which it is
# left: where it takes longer there is nothing to be found.
_NEARBY_SECONDS = 3.0
_GAP_NEARBY = 5e-3

# A limit below this many times the floor may be one that no plan keeps.
_TIGHT = 2.0

# Wall time for the bound of the least memory.
_BOUND_SECONDS = 10.0


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
        incidence = network.incidence
        sources = len(network.sources)
        born = sp.csr_array(
            (np.ones(sources), (range(sources), network.sources)),
            shape=(sources, edges),
        )
        limits = [] if boolean else [self._at_least, self._at_most]
        self._rows = [
            *limits,
            incidence @ x == np.zeros(network.nodes),
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
        delays = _MS * np.array(network.delays)
        self._makespan = cp.sum(self._times) + delays @ x

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

    def run(self, program: cp.Problem, time_limit: float, gap: float) -> _Answer | None:
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
        value: Any = program.objective.value
        objective = float(value)
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
        balance = self.network.incidence @ x
        born = x[self.network.sources]
        return bool(np.abs(balance).max(initial=0) < 1e-3 and (born > 0.999).all())
