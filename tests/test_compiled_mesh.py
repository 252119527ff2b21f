"""Steps on a mesh of eight H100, compiled."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

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
    assert planned.plan(state, batch).on_host
    _, placed, _ = fully_sharded(gpt, UNROLLED)
    shardings = jax.tree.map(lambda a: a.sharding, placed)
    same = jax.tree.map(
        lambda a, s, like: a.is_equivalent_to(s, like.ndim),
        compiled.output_shardings[0],
        shardings,
        state,
    )
    assert all(jax.tree.leaves(same))


def test_a_topology_is_three_numbers():
    with pytest.raises(autotm.TargetError, match="topology is '8'. Say how many"):
        autotm.target("h100-sxm", topology="8")


def test_a_topology_is_for_machines_that_are_named():
    with pytest.raises(autotm.TargetError, match="for machines that are named"):
        autotm.target(None, topology="1x1x8")
