"""Memory, predicted and compiled: what `autotm.jit` makes of each budget.

`python -m benchmarks.memory` compiles workloads for an H100, or another target, at
several budgets, and prints one row for each. No GPU is needed: the bytes are those of
real executables, the seconds are modelled. `--json results.json` also writes the rows
to a file, and `--workloads` and `--budgets` choose other rows:

    python -m benchmarks.memory --workloads gpt-12 vit --budgets plain 0.5 8GiB min
    python -m benchmarks.memory --workloads llama-8b --budgets 112GiB --target h200-sxm

- `error` is that of the predicted device bytes against those of the executable.
- `model ms` is the predicted time of the step, and `ratio` the same over the time that
    is predicted for no limit at all. Nothing is predicted for an unchanged step.
- `plan s` is the wall-clock time of `step.plan`. A fraction as the budget, or one that
    plain `jax.jit` might keep, includes compiling the plain step; a second run finds
    workspaces and plans in the cache.
- `copies` counts those between device and host in the executable, and `rounds` how many
    plans were compiled until one kept the budget.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


if __name__ == "__main__":
    # Before JAX starts: the target is compiled for, nothing runs.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax

import autotm_jax as autotm
from autotm_jax.budget import parse_budget
from autotm_jax.compile import temp_bytes

from . import baselines, workloads


MIB = 2**20
PLAIN = "plain"
"""The budget that stands for `jax.jit` alone."""

DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "gpt-12": (PLAIN, "26GiB", "20GiB", "12GiB", "8GiB", "6GiB", "min"),
    "resnet-50": (PLAIN, "0.5", "min"),
    "gpt-12-scanned": (PLAIN, "0.4", "8GiB", "5GiB", "min"),
    "gpt-32-scanned": (PLAIN, "24GiB", "16GiB", "10GiB", "8GiB", "min"),
}
"""The workloads of the table, and the budgets of each."""

OTHERWISE = (PLAIN, "0.5", "min")
"""The budgets of a workload that is not in `DEFAULTS`."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What one budget led to; `None` where there is nothing to say.

    - `workload`, `budget`: what was asked for.
    - `predicted_bytes`, `device_bytes`: device memory, by the plan and by XLA.
    - `temp_bytes`, `host_bytes`: the part that is temporaries, and pinned host memory.
    - `seconds`, `unconstrained_seconds`: modelled, with and without the limit.
    - `plan_seconds`, `compile_seconds`: wall-clock time of `step.plan` and of the rest.
    - `copies`, `rounds`, `status`: see `autotm_jax.Plan`; for a budget that cannot be
        kept the status names the error.
    - `notes`: the warnings given, or what the error says.
    """

    workload: str
    budget: str
    status: str
    predicted_bytes: int | None = None
    device_bytes: int | None = None
    temp_bytes: int | None = None
    host_bytes: int | None = None
    seconds: float | None = None
    unconstrained_seconds: float | None = None
    plan_seconds: float | None = None
    compile_seconds: float | None = None
    copies: int | None = None
    rounds: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> float | None:
        """How far the prediction is above the executable, as a fraction of it."""
        if self.predicted_bytes is None or not self.device_bytes:
            return None
        return self.predicted_bytes / self.device_bytes - 1

    @property
    def ratio(self) -> float | None:
        """The modelled time over that without a limit."""
        if self.seconds is None or not self.unconstrained_seconds:
            return None
        return self.seconds / self.unconstrained_seconds


def plain(workload: workloads.Workload, target: autotm.Target) -> Row:
    """The row of `jax.jit` alone."""
    found = baselines.plain(workload, target)
    return Row(
        workload.name,
        PLAIN,
        found.name,
        device_bytes=found.device_bytes,
        temp_bytes=found.temp_bytes,
        host_bytes=found.host_bytes,
        compile_seconds=found.compile_seconds,
    )


def planned(workload: workloads.Workload, target: autotm.Target, budget: str) -> Row:
    """The row of `autotm.jit` at a budget."""
    step = autotm.jit(
        workload.step,
        budget=_budget(budget),
        target=target,
        donate_argnums=workload.donate_argnums,
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        start = time.perf_counter()
        try:
            step.plan(*workload.args)
            between = time.perf_counter()
            compiled = step.lower(*workload.args).compile()
        except autotm.AutoTMError as error:
            reason = str(error).splitlines()[0]
            return Row(workload.name, budget, type(error).__name__, notes=(reason,))
        end = time.perf_counter()
    plan = step.plan(*workload.args)
    assert plan.realised is not None
    return Row(
        workload.name,
        budget,
        plan.status.name.lower(),
        # What is left as it is was compiled, not predicted.
        None if plan.is_untouched else plan.device_bytes,
        plan.realised.device_bytes,
        temp_bytes(compiled),
        plan.realised.host_bytes,
        plan.seconds,
        plan.unconstrained_seconds,
        between - start,
        end - between,
        plan.realised.copies,
        plan.realised.rounds,
        tuple(str(w.message) for w in said if w.category is autotm.AutoTMWarning),
    )


def table(
    names: Sequence[str], budgets: Sequence[str] | None, target: autotm.Target
) -> Iterator[Row]:
    """Every row, as soon as it is known.

    **Arguments:**

    - `names`: of workloads.
    - `budgets`: for each of them; `None` for those in `DEFAULTS`.
    - `target`: what to compile for.
    """
    for name in names:
        workload = workloads.get(name)
        for budget in budgets or DEFAULTS.get(name, OTHERWISE):
            print(f"{name} at {budget} ...", file=sys.stderr, flush=True)
            if budget == PLAIN:
                yield plain(workload, target)
            else:
                yield planned(workload, target, budget)


_HEAD = (
    f"{'workload':<14} {'budget':>7} {'predicted':>10} {'compiled':>10} {'error':>7} "
    f"{'temp':>7} {'host':>7} {'model':>8} {'ratio':>6} {'plan':>6}\n"
    f"{'':<14} {'':>7} {'MiB':>10} {'MiB':>10} {'%':>7} "
    f"{'MiB':>7} {'MiB':>7} {'ms':>8} {'':>6} {'s':>6} "
    f"{'copies':>6} {'rounds':>6} status"
)


def line(row: Row) -> str:
    """A row of the printed table."""
    cells = [
        f"{row.workload:<14} {row.budget:>7}",
        f"{_mebibytes(row.predicted_bytes):>10}",
        f"{_mebibytes(row.device_bytes):>10}",
        f"{_number(row.error, '+.2f', 100):>7}",
        f"{_mebibytes(row.temp_bytes):>7}",
        f"{_mebibytes(row.host_bytes):>7}",
        f"{_number(row.seconds, ',.1f', 1000):>8}",
        f"{_number(row.ratio, '.3f'):>6}",
        f"{_number(row.plan_seconds, '.1f'):>6}",
        f"{_number(row.copies, 'd'):>6}",
        f"{_number(row.rounds, 'd'):>6}",
        row.status,
    ]
    return " ".join(cells)


def _budget(text: str) -> int | float | str:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def _checked(text: str) -> str:
    if text != PLAIN:
        try:
            parse_budget(_budget(text))
        except autotm.BudgetError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _mebibytes(nbytes: int | None) -> str:
    return _number(nbytes, ",.0f", 1 / MIB)


def _number(value: float | None, form: str, scale: float = 1) -> str:
    if value is None:
        return "-"
    return format(value if scale == 1 else value * scale, form)


def main() -> None:
    """Prints the table; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description="What autotm.jit makes of each budget, compiled for an H100.",
    )
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument(
        "--workloads",
        nargs="+",
        default=list(DEFAULTS),
        choices=workloads.names(),
        metavar="NAME",
        help=f"of: {', '.join(workloads.names())} (default: {' '.join(DEFAULTS)})",
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=_checked,
        metavar="BUDGET",
        help='a size, a fraction, "min", or "plain" for jax.jit alone',
    )
    parser.add_argument(
        "--target",
        default="h100-sxm",
        choices=[name for name in autotm.known_machines() if name != "cpu"],
        metavar="NAME",
        help="what to compile for (default: h100-sxm)",
    )
    options = parser.parse_args()
    target = autotm.target(options.target)
    print(f"Compiled for {target.machine.name} by JAX {jax.__version__}; ms modelled.")
    print(_HEAD, flush=True)
    rows: list[Row] = []
    for row in table(options.workloads, options.budgets, target):
        print(line(row), flush=True)
        for note in row.notes:
            print(f"{'':<14} note: {note}", flush=True)
        rows.append(row)
        if options.json:
            _write(options.json, target, rows)


def _write(path: Path, target: autotm.Target, rows: Sequence[Row]) -> None:
    results = {
        "date": datetime.date.today().isoformat(),
        "target": target.machine.name,
        "jax": jax.__version__,
        "seconds": "modelled",
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
