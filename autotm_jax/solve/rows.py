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

from typing import Any, Protocol

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from .answer import MIB, MS
from .columns import Columns, Lane
from .problem import Problem
from .sparse import block_sums, exact, matrix_of, ones_at


class Timing(Protocol):
    """What a formulation says about time."""

    def __call__(self, rows: Rows) -> tuple[list[Any], Any]:
        """The rows that define the makespan, and the makespan, in milliseconds."""
        ...


class Rows:
    """The variables of a boolean program, or of its relaxation, and its rows.

    - `x`: what is taken of each column.
    - `least`: MiB that every segment keeps on the device.
    - `variants`, `a`: segments that may run by other variants, and whether they do.
    - `all`: the rows.

    **Arguments:**

    - `columns`: of its networks.
    - `is_boolean`: whether it is the program or its relaxation.
    - `is_summed`: whether its rows say what lanes are, or only how they change.
    - `tie`: which decision decides each column, if not each one itself (`symmetry.py`).
    """

    def __init__(
        self,
        columns: Columns,
        is_boolean: bool,
        is_summed: bool = False,
        tie: sp.csr_array | None = None,
    ):
        self.columns = columns
        problem = columns.problem
        count, edges = problem.segments, len(columns.edges)
        self.is_boolean, self._is_summed = is_boolean, is_summed
        self.x: Any = cp.Variable(edges, boolean=is_boolean)
        if tie is not None:
            _, decisions = tie.shape  # pyright: ignore[reportGeneralTypeIssues]
            self.x = tie @ cp.Variable(decisions, boolean=is_boolean)
        self.least: Any = cp.Variable()
        self.variants = [
            (k, number, variant)
            for k, others in sorted(problem.variants.items())
            for number, variant in enumerate(others, start=1)
        ]
        self._configurations = [
            (k, configuration)
            for k, known in sorted(problem.configurations.items())
            for configuration in known
        ]
        self.a = self._vector(len(self.variants))
        self._c = self._vector(len(self._configurations))
        # Whether a run takes place: as little as what it makes asks for.
        self._g: Any = cp.Variable(len(columns.runs)) if columns.runs else None
        held = cp.Variable(count)
        resident = problem.resident / MIB
        self.all: list[Any] = [
            *([] if is_boolean else [self.x >= 0]),
            columns.incidence @ self.x == np.zeros(columns.nodes),
            self.born() @ self.x == 1,
            self.runs(held, "device", 1 / MIB),
            held + resident + self._workspace() <= self.least,
            *self._on_host(),
            *self._choices(),
            *self._once(),
        ]
        if columns.recomputations:
            again = self._while_again(held + resident)
            self.all += [columns.roots() @ self.x <= 0, again]

    def _on_host(self) -> list[Any]:
        problem = self.columns.problem
        most = sum(tensor.stacked for tensor in problem.tensors)
        most += max((v.host for _, _, v in self.variants), default=0)
        if most <= problem.host_limit:
            return []
        host = cp.Variable(problem.segments)
        taken = host
        if self.a is not None:
            at = [k for k, _, _ in self.variants]
            more = [v.host / MIB for _, _, v in self.variants]
            taken = host + self._by_segment(at, more) @ self.a
        return [self.runs(host, "host", 1 / MIB), taken <= problem.host_limit / MIB]

    def _vector(self, size: int) -> Any:
        return cp.Variable(size, boolean=self.is_boolean) if size else None

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
            sums = block_sums(count)
            changes, steps = exact(sums @ changes), exact(sums @ steps)
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
        taken = ones_at(entries, (len(run), len(self.columns.edges))) @ self.x
        return [taken <= one @ self._g]

    def born(self) -> sp.csr_array:
        """Which columns of each tensor begin its path: one of them is taken."""
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
        if self.a is not None:
            at = [k for k, _, _ in self.variants]
            more = [
                (v.workspace - problem.workspace[k]) / MIB for k, _, v in self.variants
            ]
            out = out + self._by_segment(at, more) @ self.a
        if self._c is not None:
            at = [k for k, _ in self._configurations]
            more = [c.staging / MIB for _, c in self._configurations]
            out = out + self._by_segment(at, more) @ self._c
        return out

    def compute(self) -> Any:
        """Milliseconds per segment, rho_k, without what is computed again."""
        problem = self.columns.problem
        out = MS * np.array(problem.compute)
        if self.a is not None:
            at = [k for k, _, _ in self.variants]
            more = [MS * (v.seconds - problem.compute[k]) for k, _, v in self.variants]
            out = out + self._by_segment(at, more) @ self.a
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
            (self.a, [(k, 0) for k, _, _ in self.variants]),
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
            if not self.is_boolean:
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
        here = ones_at(there, (len(pairs), len(columns.edges))) @ self.x
        if self._c is None:
            return here == 1
        used = ones_at(entries, (len(pairs), len(self._configurations)))
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
        born = born + matrix_of(maybe, (problem.segments, len(columns.edges))) @ self.x
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
        return pick @ (held - born) + need @ self.x + least <= self.least


def _least_workspace(problem: Problem, segment: int) -> int:
    others = (v.workspace for v in problem.variants.get(segment, ()))
    return min(0, problem.workspace[segment], *others)
