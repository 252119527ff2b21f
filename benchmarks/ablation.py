"""What deciding jointly is worth: the joint program next to simpler policies.

`python -m benchmarks.ablation` takes GPT-12, or the workload that is named, over
budgets from nine tenths of what the step needs when it is only cut down to the least
that any plan was found for. It prints a Markdown table, a row for each budget as soon
as it is known, and in it, for each policy, the milliseconds of the step, modelled, and
the seconds that the policy took to decide.

Every plan is judged by the same checker, on live bytes; a `-` says that the policy does
not keep this budget. `offload everything` and `recompute everything` know no budget:
theirs is the same plan in every row.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


if __name__ == "__main__":
    # Before JAX starts: the target is compiled for, nothing runs.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import autotm_jax as autotm
from autotm_jax.candidate import Candidate
from autotm_jax.solve import (
    PROGRAMS,
    Formulation,
    JointProgram,
    Problem,
    Schedule,
    SolverOptions,
    greedy,
    offload_everything,
    recompute_everything,
    replay,
    uniform,
)

from . import workloads
from .posing import candidate, least_bytes, traced


MIB = 2**20

FRACTIONS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1)
"""Budgets, as fractions of what the step needs when it is only cut."""

# A difference of plans that is none.
_A_TIE = 5e-4

Policy = Callable[[Problem], Schedule | None]
"""A plan for a problem with a device limit, or `None`; it need not keep the limit."""


def solved(formulation: Formulation) -> Callable[[Problem, SolverOptions], Policy]:
    """One of the boolean programs, built once for all limits."""

    def policy(free: Problem, options: SolverOptions) -> Policy:
        if formulation is Formulation.JOINT:  # as it is posed: without streams
            free = dataclasses.replace(free, configurations={})
        program = PROGRAMS[formulation](free)
        return lambda problem: program.fastest(problem.device_limit, options).schedule

    return policy


def rounding(free: Problem, options: SolverOptions) -> Policy:
    """The joint program's relaxation, rounded and repaired."""
    program = JointProgram(dataclasses.replace(free, configurations={}))
    return lambda problem: program.rounding(problem.device_limit, options)


def _direct(policy: Policy) -> Callable[[Problem, SolverOptions], Policy]:
    return lambda free, options: policy


POLICIES: Mapping[str, Callable[[Problem, SolverOptions], Policy]] = {
    "joint": solved(Formulation.JOINT),
    "asynchronous": solved(Formulation.ASYNCHRONOUS),
    "synchronous": solved(Formulation.SYNCHRONOUS),
    "static": solved(Formulation.STATIC),
    "LP rounding": rounding,
    "greedy": _direct(greedy),
    "uniform per layer": _direct(uniform),
    "recompute everything": _direct(recompute_everything),
    "offload everything": _direct(offload_everything),
}
"""By name, what makes a policy of a problem without a limit."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one policy made of one budget.

    - `seconds`: of the step, modelled; `None` if the budget is not kept.
    - `peak_bytes`: of temporaries under the plan; `None` if there is none.
    - `solve_seconds`: wall-clock time of deciding.
    - `faults`: how many rules the plan breaks, the device limit among them.
    """

    seconds: float | None
    peak_bytes: int | None
    solve_seconds: float
    faults: int


@dataclasses.dataclass(frozen=True)
class Row:
    """What all policies made of one budget.

    - `budget`: its name.
    - `budget_bytes`, `limit_bytes`: of device memory, and the part for temporaries.
    - `outcomes`: by policy.
    """

    budget: str
    budget_bytes: int
    limit_bytes: int
    outcomes: dict[str, Outcome]


def outcome(policy: Policy, problem: Problem) -> Outcome:
    """What a policy makes of a problem, by the checker."""
    start = time.perf_counter()
    schedule = policy(problem)
    taken = time.perf_counter() - start
    if schedule is None:
        return Outcome(None, None, taken, 0)
    state = replay(problem, schedule)
    seconds = None if state.faults else state.makespan
    return Outcome(seconds, state.device_peak, taken, len(state.faults))


def budgets(posed: Candidate, least: int) -> Iterator[tuple[str, int]]:
    """Names and bytes of temporaries, from much to the least."""
    for fraction in FRACTIONS:
        limit = int(fraction * posed.cut_bytes) - posed.fixed_bytes
        if limit > least:
            yield f"{fraction:g}", limit
    yield "least", least


def with_streams(posed: Candidate) -> Problem:
    """The problem, with what AutoTM's programs may also do: stream operands."""
    configured = posed.of(Formulation.STATIC).problem.configurations
    return dataclasses.replace(posed.problem, configurations=configured)


def table(
    posed: Candidate, least: int, options: SolverOptions, names: Sequence[str]
) -> Iterator[Row]:
    """Every row, as soon as it is known.

    **Arguments:**

    - `posed`: the step.
    - `least`: the least bytes of temporaries that any plan needs.
    - `options`: what a solver may take for each budget.
    - `names`: of policies.
    """
    free = with_streams(posed)
    policies = {name: POLICIES[name](free, options) for name in names}
    for budget, limit in budgets(posed, least):
        problem = dataclasses.replace(free, device_limit=float(limit))
        outcomes = {}
        for name, policy in policies.items():
            print(f"{budget}: {name} ...", file=sys.stderr, flush=True)
            outcomes[name] = outcome(policy, problem)
        yield Row(budget, limit + posed.fixed_bytes, limit, outcomes)


def verdict(rows: Sequence[Row]) -> list[str]:
    """Where the joint program wins and where it does not, in sentences."""
    lines = []
    for row in rows:
        known = {n: o.seconds for n, o in row.outcomes.items() if o.seconds is not None}
        ours = known.pop("joint", None)
        if ours is None:
            found = f"finds nothing; so do {len(row.outcomes) - 1 - len(known)} others"
        elif not known:
            found = "is the only one with a plan"
        else:
            name = min(known, key=known.__getitem__)
            part = known[name] / ours - 1
            than = "faster" if part >= 0 else "slower"
            found = f"is {abs(part):.1%} {than} than the next best, {name}"
            if abs(part) < _A_TIE:
                found = f"is as fast as the next best, {name}"
        lines.append(f"At {row.budget} joint {found}.")
    return lines


def line(row: Row) -> str:
    """A row of the printed table."""
    cells = [row.budget, f"{row.budget_bytes / MIB:,.0f}"]
    for found in row.outcomes.values():
        if found.seconds is None:
            cells.append(f"- ({found.solve_seconds:.2f} s)")
        else:
            milliseconds = 1000 * found.seconds
            cells.append(f"{milliseconds:,.1f} ({found.solve_seconds:.2f} s)")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description="The joint program next to simpler policies, for an H100.",
    )
    parser.add_argument(
        "workload", nargs="?", default="gpt-12", choices=workloads.names()
    )
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument(
        "--policies",
        nargs="+",
        default=list(POLICIES),
        choices=list(POLICIES),
        metavar="NAME",
        help=f"of: {', '.join(POLICIES)} (default: all)",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=60.0,
        help="seconds of a solver for each budget (default: 60)",
    )
    given = parser.parse_args()
    target = autotm.target("h100-sxm")
    options = SolverOptions(given.time_limit)
    posed = candidate(traced(workloads.get(given.workload)), target, options)
    problem = posed.problem
    least = least_bytes(problem, posed.least.schedule)
    head = {
        "workload": given.workload,
        "target": target.machine.name,
        "segments": problem.segments,
        "tensors": len(problem.tensors),
        "fixed_bytes": posed.fixed_bytes,
        "cut_bytes": posed.cut_bytes,
        "unconstrained_seconds": sum(problem.compute),
    }
    print(
        f"{given.workload} on {target.machine.name}: {problem.segments} segments, "
        f"{len(problem.tensors)} tensors; {posed.cut_bytes / MIB:,.0f} MiB when only "
        f"cut, {posed.fixed_bytes / MIB:,.0f} of them fixed; "
        f"{1000 * sum(problem.compute):,.1f} ms without a limit, modelled.\n"
    )
    columns = ["budget", "MiB", *(f"{name}, ms" for name in given.policies)]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    rows: list[Row] = []
    for row in table(posed, least, options, given.policies):
        print(line(row), flush=True)
        rows.append(row)
        if given.json:
            _write(given.json, head, rows)
    if "joint" in given.policies:
        print("", *verdict(rows), sep="\n")


def _write(path: Path, head: dict[str, Any], rows: Sequence[Row]) -> None:
    results = {
        "date": datetime.date.today().isoformat(),
        "seconds": "modelled",
        **head,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
