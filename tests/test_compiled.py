"""Plans compiled for a GPU that is not here, and what their executables show."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import AutoTMWarning, Plan
from autotm_jax.compile.verify import examine
from autotm_jax.emit import emit
from autotm_jax.solve import Schedule, offload_everything, packed_bytes, replay
from benchmarks.workloads import Workload, gpt

from .compiling import needs_cuda_plugin
from .steps import SMALL_GPT, chain_arguments, moving_step


pytestmark = [
    needs_cuda_plugin,
    pytest.mark.filterwarnings(f"error::{AutoTMWarning.__module__}.AutoTMWarning"),
]


@functools.cache
def workload() -> Workload:
    return gpt.workload(SMALL_GPT, "small")


@functools.cache
def plain() -> Any:
    """The untouched step, compiled."""
    target = autotm.target("h100-sxm")
    step = jax.jit(workload().step, donate_argnums=0)
    return step.lower(*target.place(workload().args)).compile()


@functools.cache
def planned(budget: str | int) -> tuple[Plan, Any]:
    """A plan for an H100 and its executable."""
    step = autotm.jit(
        workload().step, budget=budget, target="h100-sxm", donate_argnums=0
    )
    compiled = step.lower(*workload().args).compile()
    return step.plan(*workload().args), compiled


def check(plan: Plan, compiled: Any) -> None:
    """Everything a plan promises."""
    assert plan.realised is not None
    device, host = autotm.device_bytes(compiled), autotm.host_bytes(compiled)
    assert plan.realised.device_bytes == device
    assert plan.realised.host_bytes == host
    if plan.budget is not None:
        assert device <= plan.budget
    assert plan.device_bytes == pytest.approx(device, rel=0.03)
    schedule = plan.schedule
    assert (host > 0) == bool(schedule.stores)
    assert host == pytest.approx(plan.host_bytes, rel=0.03, abs=4096)
    copies = len(schedule.stores) + len(schedule.fetches)
    assert plan.realised.copies == copies
    text = compiled.as_text()
    assert ".remat" not in text
    assert len(re.findall(r"copy-start\(", text)) >= copies
    assert plan.problem is not None
    assert replay(plan.problem, schedule).faults == ()


def test_as_little_as_possible():
    plan, compiled = planned("min")
    check(plan, compiled)
    assert plan.schedule.recomputes or plan.schedule.stores
    assert autotm.device_bytes(compiled) < 0.65 * autotm.device_bytes(plain())


def test_a_budget_in_the_middle():
    least = autotm.device_bytes(planned("min")[1])
    middle = (least + autotm.device_bytes(plain())) // 2
    plan, compiled = planned(middle)
    check(plan, compiled)
    assert plan.budget == middle
    assert plan.seconds is not None and planned("min")[0].seconds is not None
    assert plan.seconds <= planned("min")[0].seconds


def test_plain_fits_and_is_left_alone():
    nbytes = autotm.device_bytes(plain())
    plan, compiled = planned(nbytes)
    assert plan.is_untouched
    assert autotm.device_bytes(compiled) == nbytes


def test_gradients_of_donated_tables():
    # A donated table is no place to gather its gradient in, and one buffer for that
    # is filled after the other.
    def loss(tables: Any, at: Any, w: Any) -> Any:
        rows = [jnp.take(t, at, axis=0) for t in tables]
        return jnp.sum((jnp.concatenate(rows, 1) @ w) ** 2)

    def step(tables: Any, at: Any, w: Any) -> Any:
        grads = jax.grad(loss)(tables, at, w)
        return [t - 0.1 * g for t, g in zip(tables, grads, strict=True)]

    tables = [jnp.ones((50_000, 64)) for _ in range(8)]
    args = (tables, jnp.arange(4096), jnp.ones((512, 512)))
    options: Any = {"target": "h100-sxm", "donate_argnums": 0}
    jitted = autotm.jit(step, budget="min", **options)
    compiled = jitted.lower(*args).compile()
    found = jitted.plan(*args).device_bytes
    assert found == pytest.approx(autotm.device_bytes(compiled), rel=0.05)
    plain = autotm.jit(step, **options).lower(*args).compile()
    table = tables[0].nbytes
    assert autotm.device_bytes(compiled) <= autotm.device_bytes(plain)
    assert table < compiled.memory_analysis().temp_size_in_bytes < 4 * table


def test_moving_everything_is_realised():
    plan = planned("min")[0]
    assert plan.program is not None and plan.problem is not None
    schedule = offload_everything(plan.problem)
    assert len(schedule.stores) >= 5
    sharding = autotm.target("h100-sxm").sharding
    avals = [plan.program.values[a].aval for a in plan.program.arguments]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in avals]
    donated = [i for i, given in enumerate(plan.program.donated) if given]
    jitted = jax.jit(emit(plan.program, schedule), donate_argnums=donated)
    options = {"xla_disable_hlo_passes": "rematerialization"}
    compiled = jitted.lower(*shapes).compile(options)
    evidence = examine(compiled, schedule, "cuda")
    assert evidence.faults == ()
    assert evidence.copies == len(schedule.stores) + len(schedule.fetches)
    state = replay(plan.problem, schedule)
    assert evidence.host_bytes == pytest.approx(state.host_peak, rel=0.05)
    results, aliased = plan.program.result_bytes()
    fixed = plan.program.argument_bytes() + results - aliased
    taken = fixed + packed_bytes(plan.problem, state)
    assert evidence.device_bytes == pytest.approx(taken, rel=0.05)


def test_a_plan_of_another_schedule_is_told():
    plan, compiled = planned("min")
    assert plan.problem is not None
    schedule = offload_everything(plan.problem)
    wanted = len(schedule.stores) + len(schedule.fetches)
    there = len(plan.schedule.stores) + len(plan.schedule.fetches)
    assert examine(compiled, schedule, "cuda").faults == (
        f"XLA kept {there} of the {wanted} planned copies between device and host "
        "memory",
    )
    assert examine(compiled, Schedule(), "cuda").faults == ()


def test_a_step_that_can_only_move():
    args = chain_arguments(layers=6, width=256, batch=4096)
    step = autotm.jit(moving_step, budget="min", target="h100-sxm")
    compiled = step.lower(*args).compile()
    plan = step.plan(*args)
    schedule = plan.schedule
    assert len(schedule.stores) >= 5
    assert not schedule.recomputes
    assert plan.realised is not None
    assert plan.realised.copies == len(schedule.stores) + len(schedule.fetches)
    # All host copies are alive at the turn from the forward to the backward pass.
    assert autotm.host_bytes(compiled) == plan.moved_bytes == plan.host_bytes
    assert plan.device_bytes is not None
    assert autotm.device_bytes(compiled) == pytest.approx(plan.device_bytes, rel=0.01)
    assert autotm.device_bytes(compiled) < 34 * 2**20  # plain takes 35
    still = autotm.jit(moving_step, budget="min", target="h100-sxm", host_budget=0)
    assert still.plan(*args).schedule.stores == ()


def test_a_budget_above_the_least_is_met():
    args = chain_arguments(layers=6, width=256, batch=4096)
    step = autotm.jit(moving_step, budget="34MiB", target="h100-sxm")
    compiled = step.lower(*args).compile()  # the least is 31.2 MiB, plain takes 35
    assert autotm.device_bytes(compiled) <= 34 * 2**20
