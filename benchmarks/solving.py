"""How planning scales: seconds from a step to its plan, on deeper and deeper models.

`python -m benchmarks.solving` prints a Markdown table, a row for each workload and
budget as soon as it is known. Others can be named:

    python -m benchmarks.solving gpt-48:0.5 resnet-200:8GiB densenet-264:tight

Nothing is compiled but the kinds of segment whose workspace XLA is asked for.

- A fraction as the budget is one of what the step needs when it is only cut; `tight` is
    1.15 times the least temporaries of any plan, with the arguments and results.
- `trace` is from the Python function to segments, `price` the segments' workspaces and
    times, from an empty cache and from a full one, `formulate` the numbers of the
    problem, `build` the boolean program, `least` the search for the least memory (which
    `tight` asks for), `solve` the search for the fastest plan.
- `step` is the time of the step under the plan, modelled, and `ratio` the same over the
    modelled time without a limit.
- `gap` is what the solver could not rule out, as a part of `step`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar


if __name__ == "__main__":
    # Before JAX starts: the target is compiled for, nothing runs.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import autotm_jax as autotm
from autotm_jax.budget import parse_budget
from autotm_jax.candidate import Candidate
from autotm_jax.solve import JointProgram, Problem, Solution, SolverOptions, replay

from . import workloads
from .posing import candidate, least_bytes, traced


MIB = 2**20

TIGHT = "tight"
"""The budget that stands for 1.15 times the least."""

_ROOM = 1.15

DEFAULTS = tuple(
    f"{name}:{budget}"
    for name in ("gpt-12", "gpt-24", "gpt-48", "resnet-200", "densenet-264", "gpt-96")
    for budget in ("0.5", TIGHT)
)
"""The rows of the table."""

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Posed:
    """A placement problem, and the seconds that it took to get there.

    - `candidate`: the workload, priced; its `problem` has been formulated.
    - `trace_seconds`, `formulate_seconds`: see the module's text.
    - `cold_seconds`, `cached_seconds`: of pricing; the first is `None` if the cache was
        not emptied.
    """

    candidate: Candidate
    trace_seconds: float
    cold_seconds: float | None
    cached_seconds: float
    formulate_seconds: float


@dataclasses.dataclass(frozen=True)
class Row:
    """What one budget led to; `None` where there is nothing to say.

    - `workload`, `budget`: what was asked for.
    - `segments`, `tensors`: the size of the problem.
    - `budget_bytes`, `limit_bytes`: of device memory, and the part for temporaries.
    - `trace_seconds` to `solve_seconds`: wall-clock times; see the module's text.
    - `least_bytes`, `least_status`: the least temporaries that were found, and how the
        search for them ended.
    - `seconds`, `unconstrained_seconds`: of the step, modelled, with and without the
        limit.
    - `gap`, `status`: of the solution, or the rule that its schedule breaks.
    """

    workload: str
    budget: str
    segments: int
    tensors: int
    budget_bytes: int
    limit_bytes: int
    trace_seconds: float
    cold_seconds: float | None
    cached_seconds: float
    formulate_seconds: float
    build_seconds: float
    least_seconds: float | None
    least_bytes: int | None
    least_status: str | None
    solve_seconds: float
    unconstrained_seconds: float
    seconds: float | None
    gap: float | None
    status: str


class Solver:
    """All that is asked of the solver, timed."""

    def __init__(self, problem: Problem, options: SolverOptions):
        self._problem, self._options = problem, options
        self._joint, self.build_seconds = _timed(lambda: JointProgram(problem))
        self._least: tuple[Solution, float] | None = None

    def least(self) -> tuple[int, str, float]:
        """The least bytes of temporaries, how the search for them ended, its seconds.

        Where it ended without a plan, the least that policies without a solver need.
        """
        if self._least is None:
            self._least = _timed(lambda: self._joint.least_memory(self._options))
        solution, seconds = self._least
        status = solution.status.name.lower()
        if solution.schedule is None:
            status = f"{status}, no plan found"
        return least_bytes(self._problem, solution.schedule), status, seconds

    def fastest(self, limit: float) -> tuple[Solution, float]:
        """The fastest plan within a limit, and the seconds of the search for it."""
        return _timed(lambda: self._joint.fastest(limit, self._options))


def posed(workload: workloads.Workload, target: autotm.Target, is_cold: bool) -> Posed:
    """The problem of a workload.

    **Arguments:**

    - `workload`, `target`: whose step, and where it would run.
    - `is_cold`: price it from an empty cache first, rather than from the user's.
    """
    program, trace_seconds = _timed(lambda: traced(workload))
    cold_seconds = None
    with _empty_cache() if is_cold else contextlib.nullcontext():
        first = candidate(program, target)
        _, first_seconds = _timed(lambda: first.costs)
        if is_cold:
            cold_seconds = first_seconds
        again = candidate(program, target)
        _, cached_seconds = _timed(lambda: again.costs)
    _, formulate_seconds = _timed(lambda: again.problem)
    return Posed(again, trace_seconds, cold_seconds, cached_seconds, formulate_seconds)


def row(name: str, budget: str, found: Posed, solver: Solver) -> Row:
    """The row of one budget."""
    problem, fixed = found.candidate.problem, found.candidate.fixed_bytes
    least, least_status, least_seconds = None, None, None
    if budget == TIGHT:
        least, least_status, least_seconds = solver.least()
        limit = _ROOM * least
    else:
        asked = parse_budget(_size(budget))
        assert isinstance(asked, (int, float)), asked
        is_fraction = isinstance(asked, float)
        limit = asked * (found.candidate.cut_bytes if is_fraction else 1) - fixed
    solution, solve_seconds = solver.fastest(limit)
    seconds, status = None, solution.status.name.lower()
    if solution.schedule is not None:
        bounded = dataclasses.replace(problem, device_limit=limit)
        state = replay(bounded, solution.schedule)
        seconds = state.makespan
        status = state.faults[0] if state.faults else status
    return Row(
        name,
        budget,
        problem.segments,
        len(problem.tensors),
        int(limit) + fixed,
        int(limit),
        found.trace_seconds,
        found.cold_seconds,
        found.cached_seconds,
        found.formulate_seconds,
        solver.build_seconds,
        least_seconds,
        least,
        least_status,
        solve_seconds,
        sum(problem.compute),
        seconds,
        None if seconds is None else solution.gap,
        status,
    )


def table(
    cells: Sequence[tuple[str, str]],
    target: autotm.Target,
    options: SolverOptions,
    is_cold: bool,
) -> Iterator[Row]:
    """Every row, as soon as it is known.

    **Arguments:**

    - `cells`: workloads and budgets. A workload is posed once for the budgets that
        follow each other.
    - `target`: what to plan for.
    - `options`: what the solver may take for each budget.
    - `is_cold`: see `posed`.
    """
    last, found, solver = None, None, None
    for name, budget in cells:
        print(f"{name} at {budget} ...", file=sys.stderr, flush=True)
        if name != last or found is None or solver is None:
            last, found = name, posed(workloads.get(name), target, is_cold)
            solver = Solver(found.candidate.problem, options)
        yield row(name, budget, found, solver)


_COLUMNS = (
    "workload",
    "budget",
    "segments",
    "tensors",
    "MiB",
    "trace s",
    "price s (cold / cached)",
    "formulate s",
    "build s",
    "least s",
    "solve s",
    "step ms (modelled)",
    "ratio",
    "gap %",
    "status",
)


def line(row: Row) -> str:
    """A row of the printed table."""
    ratio = None if row.seconds is None else row.seconds / row.unconstrained_seconds
    cells = [
        row.workload,
        row.budget,
        f"{row.segments:,}",
        f"{row.tensors:,}",
        f"{row.budget_bytes / MIB:,.0f}",
        _cell(row.trace_seconds),
        f"{_cell(row.cold_seconds)} / {_cell(row.cached_seconds)}",
        _cell(row.formulate_seconds),
        _cell(row.build_seconds),
        _cell(row.least_seconds),
        _cell(row.solve_seconds),
        _cell(row.seconds, 1000),
        _cell(ratio, digits=3),
        _cell(row.gap, 100),
        row.status,
    ]
    return f"| {' | '.join(cells)} |"


def _cell(value: float | None, scale: float = 1, digits: int = 2) -> str:
    return "-" if value is None else f"{value * scale:,.{digits}f}"


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    before = os.environ.get("AUTOTM_JAX_CACHE")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["AUTOTM_JAX_CACHE"] = directory
        try:
            yield
        finally:
            del os.environ["AUTOTM_JAX_CACHE"]
            if before is not None:
                os.environ["AUTOTM_JAX_CACHE"] = before


def _size(text: str) -> int | float | str:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def _named(text: str) -> tuple[str, str]:
    name, _, budget = text.partition(":")
    if name not in workloads.names():
        known = ", ".join(workloads.names())
        raise argparse.ArgumentTypeError(f"no workload {name!r}; there are {known}")
    if budget != TIGHT:
        try:
            asked = parse_budget(_size(budget))
        except autotm.BudgetError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if not isinstance(asked, (int, float)):
            raise argparse.ArgumentTypeError(f"{text!r}: ask for {TIGHT!r} instead")
    return name, budget


def main() -> None:
    """Prints the table; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.solving",
        description="Seconds from a step to its plan, for an H100.",
    )
    parser.add_argument(
        "cells",
        nargs="*",
        type=_named,
        metavar="WORKLOAD:BUDGET",
        help=f'a budget is a size, a fraction, or "{TIGHT}" '
        f"(default: {' '.join(DEFAULTS)})",
    )
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument(
        "--time-limit",
        type=float,
        default=60.0,
        help="seconds of the solver for each search (default: 60)",
    )
    parser.add_argument(
        "--gap", type=float, default=0.01, help="relative MIP gap (default: 0.01)"
    )
    parser.add_argument(
        "--warm",
        action="store_true",
        help="price from the cache as it is, not from an empty one first",
    )
    given = parser.parse_args()
    cells = given.cells or [_named(cell) for cell in DEFAULTS]
    target = autotm.target("h100-sxm")
    options = SolverOptions(given.time_limit, given.gap)
    versions = {p: importlib.metadata.version(p) for p in ("jax", "cvxpy", "highspy")}
    print(
        f"Planned for {target.machine.name} on {os.cpu_count()} cores, at most "
        f"{options.time_limit:g} s a search, to a gap of {options.gap:.1%}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".\n"
    )
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}", flush=True)
    rows: list[Row] = []
    for found in table(cells, target, options, not given.warm):
        print(line(found), flush=True)
        rows.append(found)
        if given.json:
            _write(given.json, target, options, versions, rows)


def _write(
    path: Path,
    target: autotm.Target,
    options: SolverOptions,
    versions: dict[str, str],
    rows: Sequence[Row],
) -> None:
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "target": target.machine.name,
        "cores": os.cpu_count(),
        "solver": dataclasses.asdict(options),
        **versions,
        "seconds": "modelled",
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
