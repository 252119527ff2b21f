"""The compiled truth: the paper's networks for a GPU of 11 GB, as XLA compiles them.

XLA cannot compile for an RTX 2080 Ti that is not here, but for an H100: so each step is
planned and compiled for that, with the memory of the smaller card as its budget.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import warnings
from collections.abc import Callable


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import autotm_jax as autotm
from autotm_jax.solve import Schedule, replay

from ..workloads import Workload, vgg
from ..workloads.autotm import NETWORKS
from .device import MACHINE, OVERHEAD
from .registry import experiment
from .report import Cell, Report, Table
from .sharing import Shared
from .study import GB, Study


TARGET = "h100-sxm"

BUDGET = MACHINE.device_bytes - OVERHEAD
"""Bytes for arguments, results and everything else."""

SMALL = 160_000_000
"""The budget of the quick form: five eighths of what its step takes."""

CLOSE = 3.0
"""Percent by which predicted bytes may be off."""

SLOWEST_FIRST = ("densenet-264", "resnet-200", "inception-v4", "vgg-19")
"""The networks; XLA takes more than a minute for each batch of the first one."""

NEEDS = "jax_plugins.xla_cuda13"
"""What compiles for a GPU that is not here."""

COLUMNS = (
    "network",
    "batch",
    "nothing moved, GB",
    "budget, GB",
    "status",
    "device, GB",
    "predicted, GB",
    "error, percent",
    "host, GB",
    "times no limit",
    "rounds",
    "plan, s",
    "compile, s",
)


def begin(study: Study) -> None:
    """Begins to compile what takes longest, beside whatever else is done."""
    if _has(NEEDS) and not study.quick:
        lines = [
            (name, str(batch))
            for name in SLOWEST_FIRST
            for batch in reversed(NETWORKS[name].gpu)
        ]
        module = "benchmarks.paper.compiled"
        study.shared["compiled"] = Shared(module, lines, study.say)


@experiment("compiled", begin)
def compiled(study: Study) -> Report | None:
    """Every network at the paper's batches for a GPU; a tiny one in the quick form."""
    if not _has(NEEDS):
        study.say(
            "compiled is left out: to compile for a GPU that is not here takes JAX's "
            "CUDA plugin (pip install 'autotm-jax[cuda-compile]')"
        )
        return None
    if study.quick:
        config = vgg.Config(stages=((64,) * 4,), hidden=16, size=64, batch=32)
        small = vgg.workload(config, "vgg-small")
        found = [("vgg-small", config.batch, *compile_within(small, SMALL))]
    else:
        rows = study.shared["compiled"].results()
        found = [tuple(row) for row in reversed(rows)]
    return Report(
        "device memory of compiled steps, on a simulated card of 11 GB",
        "its plans fit the card, after as many refinements of the limit as that takes.",
        "executables are XLA's for an H100, within what the 11 GB leave of an overhead "
        "of 0.8 GB, arguments and results included. Bytes are those of executables, "
        "seconds are modelled. What a step takes with nothing moved is compiled where "
        "it fits (untouched), and otherwise predicted, before packing. Of what is "
        "untouched, nothing is predicted.",
        (held(found), Table("Steps compiled for an H100", COLUMNS, tuple(found))),
    )


def compile_within(workload: Workload, budget: int) -> tuple[Cell, ...]:
    """Plans and compiles a step.

    **Arguments:**

    - `workload`: whose step.
    - `budget`: device bytes.

    **Returns:**

    What `COLUMNS` says, from the third one on.
    """
    step = autotm.jit(
        workload.step,
        budget=budget,
        target=TARGET,
        donate_argnums=workload.donate_argnums,
    )
    start, planned, plan, failed = time.perf_counter(), None, None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", autotm.AutoTMWarning)
        try:
            step.plan(*workload.args)
            planned = time.perf_counter()
            plan = step.verify(*workload.args)
        except autotm.AutoTMError as error:
            failed = type(error).__name__
    done = time.perf_counter()
    if planned is None:
        seconds = done - start, None
    else:
        seconds = planned - start, done - planned
    if plan is None:
        nothing = (None,) * (len(COLUMNS) - 7)
        return None, budget / GB, failed, *nothing, *seconds
    assert plan.realised is not None and plan.device_bytes is not None
    device, predicted = plan.realised.device_bytes, None
    if plan.status is not autotm.Status.UNTOUCHED:  # else it is what XLA says, too
        predicted = plan.device_bytes
    return (
        _unmoved(plan) / GB,
        budget / GB,
        plan.status.name.lower(),
        device / GB,
        None if predicted is None else predicted / GB,
        None if predicted is None else 100 * (predicted / device - 1),
        plan.realised.host_bytes / GB,
        _times(plan),
        plan.realised.rounds,
        *seconds,
    )


def held(rows: list[tuple[Cell, ...]]) -> Table:
    """Whether the budget was kept, and bytes were as predicted where they were."""
    named: list[dict[str, Cell]] = [
        dict(zip(COLUMNS, row, strict=True)) for row in rows
    ]
    predicted = [row for row in named if row["error, percent"] is not None]
    return Table(
        "What holds",
        ("claim", "holds", "in", "of cases", "not for"),
        (
            _count(
                "device bytes within the budget",
                named,
                lambda row: _at_most(row["device, GB"], row["budget, GB"]),
            ),
            _count(
                f"device bytes predicted within {CLOSE:.0f} %, where anything is",
                predicted,
                lambda row: _at_most(row["error, percent"], CLOSE),
            ),
        ),
    )


def _count(
    claim: str,
    rows: list[dict[str, Cell]],
    holds: Callable[[dict[str, Cell]], bool],
) -> tuple[Cell, ...]:
    broken = [row for row in rows if not holds(row)]
    where = ", ".join(f"{row['network']} at {row['batch']}" for row in broken)
    said = ("no" if broken else "yes") if rows else "no case"
    return claim, said, len(rows) - len(broken), len(rows), where or "-"


def _at_most(figure: Cell, most: Cell) -> bool:
    if not isinstance(figure, (int, float)) or not isinstance(most, (int, float)):
        return False  # there is none
    return abs(figure) <= most


def _unmoved(plan: autotm.Plan) -> int:
    """Device bytes with nothing moved or computed again."""
    if plan.program is None or plan.problem is None:
        return plan.device_bytes or 0
    results, aliased = plan.program.result_bytes()
    outside = plan.program.argument_bytes() + results - aliased
    live = replay(plan.problem, Schedule()).device_peak
    return outside - plan.problem.carried_bytes + live


def _times(plan: autotm.Plan) -> float:
    if plan.seconds is None or not plan.unconstrained_seconds:
        return 1.0  # untouched
    return plan.seconds / plan.unconstrained_seconds


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":  # one row, as JSON
    _, name, batch = sys.argv
    network = NETWORKS[name].workload(int(batch))
    print(json.dumps([name, int(batch), *compile_within(network, BUDGET)]))
