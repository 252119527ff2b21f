"""The compiled truth: the paper's networks for a GPU of 11 GB, as XLA compiles them.

XLA cannot compile for an RTX 2080 Ti that is not here, but for an H100: so each step is
planned and compiled for that, with the memory of the smaller card as its budget.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Iterator

import autotm_jax as autotm
from autotm_jax.solve import Schedule, replay

from ..workloads import Workload, vgg
from ..workloads.autotm import NETWORKS
from .device import MACHINE, OVERHEAD
from .registry import experiment
from .report import Cell, Report, Table
from .study import GB, Study


TARGET = "h100-sxm"

BUDGET = MACHINE.device_bytes - OVERHEAD
"""Bytes for arguments, results and everything else."""

SMALL = 160_000_000
"""The budget of the quick form: five eighths of what its step takes."""

CLOSE = 3.0
"""Percent by which predicted bytes may be off."""

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


@experiment("compiled", takes_long=True)
def compiled(study: Study) -> Report | None:
    """Every network at the paper's batches for a GPU; a tiny one in the quick form."""
    if not _has(NEEDS):
        study.say(
            "compiled is left out: to compile for a GPU that is not here takes JAX's "
            "CUDA plugin (pip install 'autotm-jax[cuda-compile]')"
        )
        return None
    found: list[tuple[Cell, ...]] = []
    for name, batch, workload, budget in _cases(study.quick):
        study.say(f"compiling {name} at batch {batch}")
        row = (name, batch, *compile_within(workload, budget))
        # It takes long, and what was found so far should not be lost.
        study.say("; ".join(f"{c}: {x}" for c, x in zip(COLUMNS, row, strict=True)))
        found.append(row)
    return Report(
        "device memory of compiled steps, on a simulated card of 11 GB",
        "its plans fit the card, after as many refinements of the limit as that takes.",
        "executables are XLA's for an H100, within what the 11 GB leave of an overhead "
        "of 0.8 GB, arguments and results included. Bytes are those of executables, "
        "seconds are modelled. What a step takes with nothing moved is compiled where "
        "it fits (untouched), and otherwise predicted, before packing.",
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
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", autotm.AutoTMWarning)
        try:
            plan = step.plan(*workload.args)
            planned = time.perf_counter()
            step.lower(*workload.args).compile()
        except autotm.AutoTMError as error:
            nothing = (None,) * (len(COLUMNS) - 7)
            taken = time.perf_counter() - start
            return None, budget / GB, type(error).__name__, *nothing, taken, None
    done = time.perf_counter()
    # The one that kept the budget.
    plan = step.plan(*workload.args)
    assert plan.realised is not None and plan.device_bytes is not None
    device = plan.realised.device_bytes
    return (
        _unmoved(plan) / GB,
        budget / GB,
        plan.status.name.lower(),
        device / GB,
        plan.device_bytes / GB,
        100 * (plan.device_bytes / device - 1),
        plan.realised.host_bytes / GB,
        _times(plan),
        plan.realised.rounds,
        planned - start,
        done - planned,
    )


def held(rows: list[tuple[Cell, ...]]) -> Table:
    """Whether the budget was kept, and bytes were predicted, in all cases."""
    named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]

    def count(claim: str, is_kept: list[bool]) -> tuple[Cell, ...]:
        broken = [r for r, kept in zip(named, is_kept, strict=True) if not kept]
        where = ", ".join(f"{r['network']} at {r['batch']}" for r in broken)
        said = "no" if broken else "yes"
        return claim, said, sum(is_kept), len(is_kept), where or "-"

    kept = [_at_most(r["device, GB"], r["budget, GB"]) for r in named]
    close = [_at_most(r["error, percent"], CLOSE) for r in named]
    return Table(
        "What holds",
        ("claim", "holds", "in", "of cases", "not for"),
        (
            count("device bytes within the budget", kept),
            count(f"device bytes predicted within {CLOSE:.0f} %", close),
        ),
    )


def _at_most(figure: Cell, most: Cell) -> bool:
    if not isinstance(figure, (int, float)) or not isinstance(most, (int, float)):
        return False  # there is none
    return abs(figure) <= most


def _cases(quick: bool) -> Iterator[tuple[str, int, Workload, int]]:
    if quick:
        config = vgg.Config(stages=((64,) * 4,), hidden=16, size=64, batch=32)
        yield "vgg-small", config.batch, vgg.workload(config, "vgg-small"), SMALL
        return
    for network in NETWORKS.values():
        for batch in network.gpu:
            yield network.name, batch, network.workload(batch), BUDGET


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
