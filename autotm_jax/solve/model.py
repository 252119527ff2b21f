"""The rows that every formulation has, over the columns of its networks.

    flow        what enters a node leaves it; every tensor is born once
    capacity    sum_t b_t d(t, k) + resident_k + workspace_k + staging_k <= D
    host        bytes of the host's copies at k <= H
    roots       a recomputation finds what it reads on the device
    runs        a run that makes several tensors takes place if one is computed again
    variants    a segment runs by one variant a(k, e)
    configurations
                a segment runs by one IO configuration c(k, q), the one with those
                tensors on the host that are there; if it is divided, each part does

d(t, k), whether t is on the device at k, is a sum of columns, as the columns of a
tensor that are taken form a path. So is whether t is streamed at k, and with
sum_q c(k, q) = 1 the rows sum_{q: t in host(q)} c(k, q) = streamed(t, k) say the same
as AutoTM's c <= d, c <= 1 - d and c + |IO| >= 1 + sum d + sum (1 - d) (section 2.4),
with a tighter relaxation. The seconds of a segment are

    rho_k = sum_e time(k, e) a(k, e) + sum_q extra(k, q) c(k, q)

as a configuration is priced by what it adds. AutoTM's product z(k, q, e) is not
needed for that.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from typing import Any, Protocol

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from ..errors import SolverError
from .columns import Columns, Lane
from .matrices import Matrices
from .problem import Problem
from .schedule import Pick, Schedule
from .solution import SolverOptions
from .worker import WORKER


MIB = float(2**20)
MS = 1e3

# How many segments in a row are summed up: with more, more cuts are found, and the
# program is larger.
_BLOCK = 128

# Of numbers that cancel out no more than this part of the largest is left.
_CANCELLED = 1e-12

# From so many columns on, the interior point method is the faster one for relaxations,
# several times. (For the least memory the simplex method always is.)
_INTERIOR = 10_000

# HiGHS takes this for infinite.
ANYTHING = 1e20

# What HiGHS calls it if there is no solution. No program here is unbounded.
NO_SOLUTION = ("kInfeasible", "kUnboundedOrInfeasible")

# Of relaxations that are solved: a solver's process keeps the last one by its name.
NAMES = itertools.count()

# What is taken by less than that is not taken.
_NOT_TAKEN = 1e-9


@dataclasses.dataclass(frozen=True)
class Answer:
    """A solver's vector, its objective, and what it proved, in the model's units.

    - `x`: a value per column.
    - `picks`: segments that run by another variant.
    - `objective`, `bound`: milliseconds, or MiB for least memory.
    - `reduced_costs`: per column, of a relaxation.
    - `schedule`: where it is not what the columns stand for.
    - `policy`: the name of the simple policy that it is, or an empty string.
    """

    x: np.ndarray
    picks: tuple[Pick, ...]
    objective: float
    bound: float
    reduced_costs: np.ndarray
    schedule: Schedule | None = None
    policy: str = ""


@dataclasses.dataclass(frozen=True)
class Posed:
    """A relaxation as it was solved.

    - `problem`: as the solver had it.
    - `variables`: which of its variables the columns are.
    - `variants`: by which of its variables segments are run by which variants.
    - `constant`: what the objective is more than the solver's.
    """

    problem: dict[str, Any]
    variables: np.ndarray
    variants: dict[int, Pick]
    constant: float

    def picks(self, x: np.ndarray) -> tuple[Pick, ...]:
        """The variants that a vector of the solver takes."""
        return tuple(pick for at, pick in self.variants.items() if x[at] > 0.5)


INFEASIBLE = Answer(np.zeros(0), (), float("inf"), float("inf"), np.zeros(0))
"""Stands for: there is no such vector."""


class Timing(Protocol):
    """What a formulation says about time."""

    def __call__(self, model: Model) -> tuple[list[Any], Any]:
        """The rows that define the makespan, and the makespan, in milliseconds."""
        ...


class Model:
    """The boolean program of a formulation, or its relaxation.

    **Arguments:**

    - `columns`: of its networks.
    - `timing`: its rows and objective.
    - `boolean`: whether it is the program or its relaxation.
    - `summed`: whether its rows say what lanes are, or only how they change.
    - `tie`: which decision decides each column, if not each one itself (`symmetry.py`).
    """

    def __init__(
        self,
        columns: Columns,
        timing: Timing,
        boolean: bool,
        summed: bool = False,
        tie: sp.csr_array | None = None,
    ):
        self.columns = columns
        problem = columns.problem
        count, edges = problem.segments, len(columns.edges)
        self._is_boolean, self._is_summed = boolean, summed
        self.x: Any = cp.Variable(edges, boolean=boolean)
        if tie is not None:
            _, decisions = tie.shape  # pyright: ignore[reportGeneralTypeIssues]
            self.x = tie @ cp.Variable(decisions, boolean=boolean)
        x = self.x
        WORKER.prepare()  # while the program is built
        self.failure = ""  # what a solver said that crashed
        self.posed: Posed | None = None  # of a relaxation that was solved last
        # What a column may be at most, and the device limit in MiB. As parameters they
        # leave a program as it is compiled.
        self._upper = cp.Parameter(edges, nonneg=True, value=np.ones(edges))
        self._limit = cp.Parameter(nonneg=True)
        # What the objective has to be below.
        self._below = cp.Parameter(value=ANYTHING)
        self._least = cp.Variable()
        self._variants = [
            (k, number, variant)
            for k, others in sorted(problem.variants.items())
            for number, variant in enumerate(others, start=1)
        ]
        self._configurations = [
            (k, configuration)
            for k, known in sorted(problem.configurations.items())
            for configuration in known
        ]
        self._a = self._vector(len(self._variants))
        self._c = self._vector(len(self._configurations))
        # Whether a run takes place: as little as what it makes asks for.
        self._g: Any = cp.Variable(len(columns.runs)) if columns.runs else None
        held = cp.Variable(count)
        resident = problem.resident / MIB
        self._rows = [
            *([] if boolean else [x >= 0]),
            x <= self._upper,
            columns.incidence @ x == np.zeros(columns.nodes),
            self._born() @ x == 1,
            self.runs(held, "device", 1 / MIB),
            held + resident + self._workspace() <= self._least,
            *self._on_host(),
            *self._choices(),
            *self._once(),
        ]
        if columns.recomputations:
            rows, product = self._while_again(held + resident), columns.roots() @ x
            self._rows += [product <= 0, rows]
        self._timing, self._makespan = timing(self)

    def _on_host(self) -> list[Any]:
        problem = self.columns.problem
        most = sum(tensor.stacked for tensor in problem.tensors)
        most += max((v.host for _, _, v in self._variants), default=0)
        if most <= problem.host_limit:
            return []
        host = cp.Variable(problem.segments)
        taken = host
        if self._a is not None:
            at = [k for k, _, _ in self._variants]
            more = [v.host / MIB for _, _, v in self._variants]
            taken = host + self._by_segment(at, more) @ self._a
        return [self.runs(host, "host", 1 / MIB), taken <= problem.host_limit / MIB]

    def _vector(self, size: int) -> Any:
        return cp.Variable(size, boolean=self._is_boolean) if size else None

    def runs(self, variable: Any, lane: Lane, unit: float) -> Any:
        """The rows that make a variable a lane of the columns, per segment.

        How a lane changes from one segment to the next is sparse, and relaxations are
        solved fastest so. Sums of changes are what solvers of boolean programs find
        cuts with, and bounds without going from row to row: a row says what a lane is
        beyond the segment before its block. What is computed again takes single
        segments.
        """
        if lane == "again":
            alone = unit * self.columns.values(lane) @ self.x
            return variable == alone + unit * self._in_runs()
        count = self.columns.problem.segments
        changes = unit * self.columns.changes(lane)
        steps = sp.eye_array(count) - sp.eye_array(count, k=-1)
        if self._is_summed:
            sums = _block_sums(count)
            changes, steps = _exact(sums @ changes), _exact(sums @ steps)
        return steps @ variable == changes @ self.x

    def _in_runs(self) -> Any:
        """Seconds per segment of what makes several tensors at once."""
        if self._g is None:
            return np.zeros(self.columns.problem.segments)
        runs = list(self.columns.runs.items())
        seconds = []
        for (_, use), members in runs:
            recipe = self.columns.problem.tensors[min(members)].recipe
            assert recipe is not None
            seconds.append(recipe.seconds[use])
        return self._by_segment([use for (_, use), _ in runs], seconds) @ self._g

    def _once(self) -> list[Any]:
        """A run takes place if one of its tensors is computed again."""
        if self._g is None:
            return []
        entries, run = [], []
        for number, members in enumerate(self.columns.runs.values()):
            for columns in members.values():
                entries += [(len(run), column) for column in columns]
                run.append(number)
        one = sp.csr_array((np.ones(len(run)), (range(len(run)), run)))
        taken = _ones(entries, (len(run), len(self.columns.edges))) @ self.x
        return [taken <= one @ self._g]

    def _born(self) -> sp.csr_array:
        columns = self.columns
        owners = columns.owner[columns.sources]
        shape = (len(columns.problem.tensors), len(columns.edges))
        ones = np.ones(len(owners))
        return sp.csr_array((ones, (owners, columns.sources)), shape=shape)

    def _by_segment(self, segments: list[int], values: list[float]) -> sp.csr_array:
        shape = (self.columns.problem.segments, len(segments))
        return sp.csr_array((values, (segments, range(len(segments)))), shape=shape)

    def _workspace(self) -> Any:
        """MiB per segment."""
        problem = self.columns.problem
        out = np.array(problem.workspace) / MIB
        if self._a is not None:
            at = [k for k, _, _ in self._variants]
            more = [
                (v.workspace - problem.workspace[k]) / MIB for k, _, v in self._variants
            ]
            out = out + self._by_segment(at, more) @ self._a
        if self._c is not None:
            at = [k for k, _ in self._configurations]
            more = [c.staging / MIB for _, c in self._configurations]
            out = out + self._by_segment(at, more) @ self._c
        return out

    def compute(self) -> Any:
        """Milliseconds per segment, rho_k, without what is computed again."""
        problem = self.columns.problem
        out = MS * np.array(problem.compute)
        if self._a is not None:
            at = [k for k, _, _ in self._variants]
            more = [MS * (v.seconds - problem.compute[k]) for k, _, v in self._variants]
            out = out + self._by_segment(at, more) @ self._a
        if self._c is not None:
            at = [k for k, _ in self._configurations]
            more = [MS * c.seconds for _, c in self._configurations]
            out = out + self._by_segment(at, more) @ self._c
        return out

    def delays(self) -> Any:
        """Milliseconds of the copies that nothing hides."""
        return (MS * np.array(self.columns.delays)) @ self.x

    def _choices(self) -> list[Any]:
        rows: list[Any] = []
        for vector, at in (
            (self._a, [(k, 0) for k, _, _ in self._variants]),
            (self._c, [(k, c.part) for k, c in self._configurations]),
        ):
            if vector is None:
                continue
            place = {k: i for i, k in enumerate(sorted(set(at)))}
            one = sp.csr_array(
                (np.ones(len(at)), ([place[k] for k in at], range(len(at))))
            )
            # None of them: the default variant, or everything on the device. Of each
            # part of a segment that is divided.
            rows += [one @ vector <= 1]
            if not self._is_boolean:
                rows.append(vector >= 0)
        if self.columns.may_stream:
            rows.append(self._streams())
        return rows

    def _streams(self) -> Any:
        """Configurations with t on the host, and t on the device: one of them."""
        columns = self.columns
        pairs = sorted(columns.may_stream)
        place = {pair: i for i, pair in enumerate(pairs)}
        entries = [
            (place[t, k], number)
            for number, (k, configuration) in enumerate(self._configurations)
            for t in configuration.host
            if (t, k) in place
        ]
        there = [
            (i, column)
            for i, pair in enumerate(pairs)
            for column in columns.there.get(pair, ())
        ]
        here = _ones(there, (len(pairs), len(columns.edges))) @ self.x
        if self._c is None:
            return here == 1
        used = _ones(entries, (len(pairs), len(self._configurations)))
        return used @ self._c + here == 1

    def _while_again(self, held: Any) -> Any:
        # While t is computed again before segment k, what k makes is not there yet.
        columns, problem = self.columns, self.columns.problem
        born, maybe = np.zeros(problem.segments), []
        for index, tensor in enumerate(problem.tensors):
            first = tensor.maker
            if first is None:
                continue
            if (index, first) not in columns.may_stream:
                born[first] += tensor.nbytes / MIB
                continue
            for column in columns.there[index, first]:
                maybe.append((first, column, tensor.nbytes / MIB))
        born = born + _matrix(maybe, (problem.segments, len(columns.edges))) @ self.x
        at = [use for _, use, _ in columns.recomputations]
        taken = [column for _, _, column in columns.recomputations]
        # What is not computed again asks for no more than the segment itself does.
        least = np.array([_least_workspace(problem, k) / MIB for k in at])
        extra = -least
        for row, (index, _, _) in enumerate(columns.recomputations):
            recipe = problem.tensors[index].recipe
            assert recipe is not None
            extra[row] += recipe.workspace / MIB
        count = len(at)
        pick = sp.csr_array(
            (np.ones(count), (range(count), at)), shape=(count, problem.segments)
        )
        need = sp.csr_array(
            (extra, (range(count), taken)), shape=(count, len(columns.edges))
        )
        return pick @ (held - born) + need @ self.x + least <= self._least

    @functools.cached_property
    def _fastest(self) -> cp.Problem:
        """Least makespan within a device limit, in milliseconds."""
        rows = [*self._rows, *self._timing, self._least == self._limit]
        if self._is_boolean:
            rows.append(self._makespan <= self._below)
        return cp.Problem(cp.Minimize(self._makespan), rows)

    @functools.cached_property
    def _least_memory(self) -> cp.Problem:
        """Least device peak, in MiB."""
        rows = list(self._rows)
        if self._is_boolean:
            rows.append(self._least <= self._below)
        return cp.Problem(cp.Minimize(self._least), rows)

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
        every = np.ones(len(self.columns.edges))
        self._upper.value = every if upper is None else upper.astype(float)
        if limit is not None:
            self._limit.value = max(0.0, limit / MIB)
        self._below.value = below
        taken: dict[str, Any] = {}
        if options.threads is not None:
            taken["threads"] = options.threads
        if self._is_boolean:
            taken["mip_rel_gap"] = options.gap
        elif limit is not None and len(every) >= _INTERIOR:
            taken["solver"] = "ipm"
        program = self._least_memory if limit is None else self._fastest
        try:
            matrices = Matrices(program)
            problem = matrices.problem(taken)
            if not self._is_boolean:
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
            posed = None if self._is_boolean else self._posed(matrices, problem)
            matrices.unpack(outcome)
        except Exception as error:  # noqa: BLE001 - whatever a solver does, there are others
            self.failure = f"{type(error).__name__}: {error}"
            return None
        if self.x.value is None or not self._is_path(self.x.value):
            return None
        value: Any = program.objective.value
        objective = float(value)
        if not np.isfinite(objective):
            return None
        x = np.asarray(self.x.value)
        # The solver does not know of constants in the objective.
        constant = objective - outcome.objective
        if self._is_boolean:
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
        if self._a is None:
            (variables,) = matrices.positions(self.x)
            return Posed(problem, variables, {}, 0.0)
        variables, chosen = matrices.positions(self.x, self._a)
        picks = [Pick(k, number) for k, number, _ in self._variants]
        variants = dict(zip(map(int, chosen), picks, strict=True))
        return Posed(problem, variables, variants, 0.0)

    def _picks(self) -> tuple[Pick, ...]:
        if self._a is None:
            return ()
        return tuple(
            Pick(k, number)
            for (k, number, _), chosen in zip(
                self._variants, self._a.value, strict=True
            )
            if chosen > 0.5
        )

    def _is_path(self, x: np.ndarray) -> bool:
        # A solver stopped early may hand back a vector that is no solution.
        if self._is_boolean and np.abs(x - np.round(x)).max(initial=0) > 1e-4:
            return False
        balance = self.columns.incidence @ x
        born = self._born() @ x
        return bool(np.abs(balance).max(initial=0) < 1e-3 and (born > 0.999).all())


def _block_sums(count: int) -> sp.csr_array:
    """Sums of a vector, each from the beginning of its block of segments."""
    sizes = [min(_BLOCK, count - first) for first in range(0, count, _BLOCK)]
    blocks = [sp.csr_array(np.tril(np.ones((n, n)))) for n in sizes]
    return sp.csr_array(sp.block_diag(blocks))


def _exact(matrix: sp.csr_array) -> sp.csr_array:
    """Without what is left of numbers that cancel out."""
    sizes = np.abs(matrix.data)
    matrix.data[sizes < _CANCELLED * sizes.max(initial=0.0)] = 0.0
    matrix.eliminate_zeros()
    return matrix


def _least_workspace(problem: Problem, segment: int) -> int:
    others = (v.workspace for v in problem.variants.get(segment, ()))
    return min(0, problem.workspace[segment], *others)


def _ones(entries: list[tuple[int, int]], shape: tuple[int, int]) -> sp.csr_array:
    return _matrix([(row, column, 1.0) for row, column in entries], shape)


def _matrix(
    entries: list[tuple[int, int, float]], shape: tuple[int, int]
) -> sp.csr_array:
    row, column, value = zip(*entries, strict=True) if entries else ((), (), ())
    return sp.csr_array((value, (row, column)), shape=shape)
