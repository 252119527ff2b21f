"""Steps on a mesh of eight H100, compiled."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import autotm_jax as autotm
from autotm_jax.compile import collectives
from benchmarks.workloads import gpt, llama

from .compiling import needs_cuda_plugin
from .meshes import by_rows, spread
from .steps import SMALL_DECODER


UNROLLED = gpt.Config(
    layers=4, width=512, heads=8, vocabulary=8192, length=512, batch=32
)


@functools.cache
def target() -> autotm.Target:
    return autotm.target("h100-sxm", topology="1x1x8")


def fully_sharded(module: Any, config: Any) -> tuple[Any, Any, Any]:
    """A step, and its arguments with the state spread over the mesh."""
    over = Mesh(np.array(target().devices), ("data",))
    workload = module.workload(config, "model")
    state, batch = workload.args
    state, batch = spread(state, over, "data"), by_rows(batch, over, "data")
    return workload.step, state, batch


def momentum_step(state: Any, x: jax.Array) -> Any:
    params, momentum, count = state

    def loss(params: list[jax.Array]) -> jax.Array:
        hidden = x
        for matrix in params:
            hidden = jnp.tanh(hidden @ matrix)
        return jnp.mean(hidden * hidden)

    value, gradient = jax.value_and_grad(loss)(params)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
    params = jax.tree.map(lambda w, m: w - 0.1 * m, params, momentum)
    return (params, momentum, count + 1), value


@needs_cuda_plugin
def test_a_budget_of_each_device_is_kept_and_predicted():
    step, state, batch = fully_sharded(llama, SMALL_DECODER)
    plain = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    budget = autotm.device_bytes(plain) // 3
    planned = autotm.jit(step, budget=budget, target=target(), donate_argnums=0)
    compiled = planned.lower(state, batch).compile()
    plan = planned.plan(state, batch)
    assert plan.device_bytes is not None
    found = autotm.device_bytes(compiled)
    assert found <= budget
    assert abs(plan.device_bytes - found) <= 0.03 * found
    theirs, ours = (collectives(c.as_text()) for c in (plain, compiled))
    assert set(ours.nbytes) <= set(theirs.nbytes)
    # Cuts keep XLA from joining them, and nothing is sent that need not be.
    assert sum(ours.nbytes.values()) <= 1.1 * sum(theirs.nbytes.values())


@needs_cuda_plugin
@pytest.mark.parametrize("are_given", [False, True])
def test_the_least_of_an_unrolled_step(are_given: bool):
    step, state, batch = fully_sharded(gpt, UNROLLED)
    plain = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    options: dict[str, Any] = {"donate_argnums": 0}
    if are_given:
        inputs = jax.tree.map(lambda a: a.sharding, (state, batch))
        options["in_shardings"] = inputs
        options["out_shardings"] = inputs[0], None
        state, batch = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (state, batch)
        )
    planned = autotm.jit(step, budget="min", target=target(), **options)
    compiled = planned.lower(state, batch).compile()
    assert autotm.device_bytes(compiled) <= 0.35 * autotm.device_bytes(plain)
    _, placed, _ = fully_sharded(gpt, UNROLLED)
    shardings = jax.tree.map(lambda a: a.sharding, placed)
    same = jax.tree.map(
        lambda a, s, like: a.is_equivalent_to(s, like.ndim),
        compiled.output_shardings[0],
        shardings,
        state,
    )
    assert all(jax.tree.leaves(same))


@needs_cuda_plugin
def test_a_state_moves_whose_shardings_are_given():
    rows = NamedSharding(Mesh(np.array(target().devices), ("data",)), P("data"))
    everywhere = NamedSharding(rows.mesh, P())
    matrix = jax.ShapeDtypeStruct((2048, 2048), np.float32, sharding=rows)
    count = jax.ShapeDtypeStruct((), np.int32, sharding=everywhere)
    placed = (
        ([matrix] * 6, [matrix] * 6, count),
        jax.ShapeDtypeStruct((256, 2048), np.float32, sharding=rows),
    )
    # Arguments whose places only the options say.
    bare = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), placed)
    inputs = (rows, rows, everywhere), rows
    given = {"in_shardings": inputs, "out_shardings": (inputs[0], None)}
    every = []
    for options, args in (({}, placed), (given, placed), (given, bare)):
        step = autotm.jit(
            momentum_step, budget="min", target=target(), donate_argnums=0, **options
        )
        compiled = step.lower(*args).compile()
        on_host = step.plan(*args).on_host
        every.append((autotm.device_bytes(compiled), on_host))
        assert autotm.host_bytes(compiled) >= 2 * 2**20 * len(on_host) > 0
        (weights, momentum, counted), _ = compiled.output_shardings
        assert all(s.is_equivalent_to(rows, 2) for s in (*weights, *momentum))
        assert counted.is_fully_replicated
    assert every == [every[0]] * 3


def typed_step(state: Any, x: jax.Array) -> Any:
    """A step whose values have their shardings in their types."""

    def loss(params: list[jax.Array]) -> jax.Array:
        hidden = x
        for matrix in params:
            whole = jax.sharding.reshard(matrix, P(None, None))
            hidden = jnp.tanh(hidden @ whole)
        return jnp.mean(hidden * hidden)

    value, gradient = jax.value_and_grad(loss)(state)
    return jax.tree.map(lambda w, g: w - 0.1 * g, state, gradient), value


@needs_cuda_plugin
@pytest.mark.parametrize("budget", ["min", 0.6])
def test_shardings_that_are_part_of_types(budget: float | str):
    kind = (jax.sharding.AxisType.Explicit,)
    over = Mesh(np.array(target().devices), ("data",), axis_types=kind)
    rows = NamedSharding(over, P("data"))
    state = [jax.ShapeDtypeStruct((1024, 1024), np.float32, sharding=rows)] * 6
    x = jax.ShapeDtypeStruct((65536, 1024), np.float32, sharding=rows)
    with jax.set_mesh(over):
        plain = jax.jit(typed_step, donate_argnums=0).lower(state, x).compile()
        step = autotm.jit(typed_step, budget=budget, target=target(), donate_argnums=0)
        compiled = step.lower(state, x).compile()
        plan = step.plan(state, x)
    assert plan.device_bytes is not None and plan.costs is not None
    assert "estimated" not in plan.costs.memory_source
    found = autotm.device_bytes(compiled)
    assert abs(plan.device_bytes - found) <= 0.03 * found
    assert found <= 0.6 * autotm.device_bytes(plain)
    assert all(s.is_equivalent_to(rows, 2) for s in compiled.output_shardings[0])


def test_a_topology_is_three_numbers():
    with pytest.raises(autotm.TargetError, match="topology is '8'. Say how many"):
        autotm.target("h100-sxm", topology="8")


def test_a_topology_is_for_machines_that_are_named():
    with pytest.raises(autotm.TargetError, match="for machines that are named"):
        autotm.target(None, topology="1x1x8")
