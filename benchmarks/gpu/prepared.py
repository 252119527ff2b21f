"""A step made ready to run in one way: compiled, with what that says about it."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax

import autotm_jax as autotm
from autotm_jax.machine import physical_bytes
from autotm_jax.simulate import simulate

from ..modelled import compute_seconds
from ..workloads import Workload
from .cases import Case
from .row import Row
from .ways import LEAST, PLAIN, REMAT, Way, budget_bytes


USABLE = 0.92
"""The part of a card's memory that steps get: the rest is CUDA's, and room."""


@dataclasses.dataclass(frozen=True)
class Known:
    """What budgets are relative to.

    - `plain`, `full`: device bytes of plain `jax.jit` and of full rematerialisation.
    - `card`: what steps get of the card's memory.
    """

    plain: int | None
    full: int | None
    card: int

    def with_row(self, row: Row) -> Known:
        """The same, after a row that budgets may be relative to."""
        if row.way == PLAIN.name:
            return dataclasses.replace(self, plain=row.device_bytes)
        if row.way == REMAT.name:
            return dataclasses.replace(self, full=row.device_bytes)
        return self


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A step made ready to run.

    - `row`: what is known before it runs.
    - `step`: to be called with a state and a batch.
    """

    row: Row
    step: Callable[..., Any]


def memory_stats() -> dict[str, int]:
    """What the allocator of the device that is here says; nothing on a CPU."""
    return jax.local_devices()[0].memory_stats() or {}


def usable_bytes(target: autotm.Target) -> int:
    """What steps get of the memory of a target."""
    if target.is_present:  # the allocator of a GPU was given a part of it already
        stats = memory_stats()
        if "bytes_limit" in stats:
            return int(stats["bytes_limit"])
    # A CPU's is the host's.
    return int(USABLE * (target.machine.device_bytes or physical_bytes()))


def prepare(
    case: Case, batch: int, way: Way, target: autotm.Target, known: Known
) -> Prepared:
    """Plans and compiles a step.

    **Arguments:**

    - `case`, `batch`, `way`: which.
    - `target`: what to compile for.
    - `known`: what budgets are relative to.

    **Returns:**

    The step, `Prepared`.

    **Raises:**

    - whatever stands in the way: `AutoTMError`s, `ValueError` for a budget that is
        relative to what is not known, and what JAX raises.
    """
    row = Row(case.name, batch, way.name)
    if way.kind == "autotm":
        return _planned(row, case.workload(batch), way, target, known)
    policy = way.detail if way.kind == "checkpoint" else None
    workload = case.workload(batch, policy)
    options = _offload(way, target, known) if way.kind == "XLA offload" else {}
    start = time.perf_counter()
    step = jax.jit(workload.step, donate_argnums=workload.donate_argnums, **options)
    compiled = step.lower(*target.place(workload.args)).compile()
    row = dataclasses.replace(
        row,
        compile_seconds=time.perf_counter() - start,
        device_bytes=autotm.device_bytes(compiled),
        host_bytes=autotm.host_bytes(compiled),
    )
    # What XLA moves is not in the program that would be priced.
    modelled = None if options else compute_seconds(workload, target)
    if modelled is not None:
        by = _roofline(target)
        row = dataclasses.replace(row, modelled_seconds=modelled, modelled_by=by)
    return Prepared(row, step)


def _planned(
    row: Row, workload: Workload, way: Way, target: autotm.Target, known: Known
) -> Prepared:
    budget = budget_bytes(way, known.plain, known.full, known.card)
    step = autotm.jit(
        workload.step,
        budget=budget,
        target=target,
        formulation=way.detail,
        donate_argnums=workload.donate_argnums,
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        start = time.perf_counter()
        step.plan(*workload.args)
        between = time.perf_counter()
        compiled = step.lower(*workload.args).compile()
        end = time.perf_counter()
        plan = step.plan(*workload.args)  # the one that kept the budget
    notes = [str(w.message) for w in said if w.category is autotm.AutoTMWarning]
    row = dataclasses.replace(
        row,
        budget_bytes=None if budget == LEAST else budget,
        status=plan.status.name.lower(),
        device_bytes=autotm.device_bytes(compiled),
        host_bytes=autotm.host_bytes(compiled),
        plan_seconds=between - start,
        compile_seconds=end - between,
        notes=tuple(filter(None, [*notes, plan.note])),
    )
    return Prepared(_with_figures(row, plan, workload, target), step)


def _with_figures(
    row: Row, plan: autotm.Plan, workload: Workload, target: autotm.Target
) -> Row:
    """A row with what its plan predicts; of what is left as it is, a roofline does."""
    if plan.is_untouched:
        return dataclasses.replace(
            row,
            modelled_seconds=compute_seconds(workload, target),
            modelled_by=_roofline(target),
        )
    assert plan.problem is not None and plan.costs is not None
    return dataclasses.replace(
        row,
        predicted_bytes=plan.device_bytes,
        modelled_seconds=plan.seconds,
        modelled_by=plan.costs.time_source,
        unconstrained_seconds=plan.unconstrained_seconds,
        simulated_seconds=simulate(plan.problem, plan.schedule).seconds,
    )


def _offload(way: Way, target: autotm.Target, known: Known) -> dict[str, Any]:
    """XLA's offload begins where a program takes more than a percentage of the card."""
    budget = budget_bytes(way, known.plain, known.full, known.card)
    assert isinstance(budget, int)
    of_card = 100 * budget // max(1, target.machine.device_bytes)
    return {
        "compiler_options": {
            "xla_gpu_enable_host_memory_offloading": True,
            "xla_gpu_memory_limit_slop_factor": max(1, of_card),
        }
    }


def _roofline(target: autotm.Target) -> str:
    return f"roofline of {target.machine.name} ({target.machine.source})"
