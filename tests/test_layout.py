"""The order of the elements of a value in memory."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import autotm_jax as autotm
from autotm_jax.trace import in_order, is_made_in_order
from benchmarks.workloads import llama

from .compiling import needs_cuda_plugin
from .meshes import mesh
from .programs import program_of
from .steps import SMALL_DECODER


def test_order_changes_no_value():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    found = jax.jit(lambda x: in_order(jnp.swapaxes(x, 1, 2), None) + 1)(x)
    np.testing.assert_array_equal(found, jnp.swapaxes(x, 1, 2) + 1)


def test_each_device_orders_what_it_has():
    over = NamedSharding(mesh(rows=2, columns=2), PartitionSpec("rows", None, None))
    x = jax.device_put(jnp.arange(24.0).reshape(2, 3, 4), over)
    found = jax.jit(lambda x: in_order(2 * x, over))(x)
    np.testing.assert_array_equal(found, 2 * x)
    assert found.sharding.is_equivalent_to(over, 3)


def test_what_a_contraction_of_batches_makes_is_in_order():
    x = jnp.ones((2, 3, 4))

    def step(x: Any) -> Any:
        scores = jnp.einsum("nid,njd->nij", x, x)
        return jnp.sin(scores), jnp.cos(scores).sum(0) @ x[0]

    program = program_of(step, x)
    found = {
        program.equations[v.producer].eqn.primitive.name
        for v in program.values
        if v.producer is not None and is_made_in_order(program, v.index)
    }
    assert found == {"dot_general"}
    # A matrix is read either way by the next contraction.
    made = [v for v in program.values if is_made_in_order(program, v.index)]
    assert {v.aval.ndim for v in made} == {3}
    assert not any(is_made_in_order(program, v) for v in program.arguments)


@needs_cuda_plugin
@pytest.mark.parametrize("budget", [0.5, 0.3])
def test_scores_that_are_read_in_another_order_are_counted(budget: float):
    # The gradient of attention reads its scores in the order of the contraction that
    # computes them again, and their gradient in that of another one.
    config = dataclasses.replace(SMALL_DECODER, batch=4)
    workload = llama.workload(config, "decoder")
    step = autotm.jit(workload.step, budget=budget, target="h100-sxm", donate_argnums=0)
    compiled = step.lower(*workload.args).compile()
    predicted = step.plan(*workload.args).device_bytes
    assert predicted == pytest.approx(autotm.device_bytes(compiled), rel=0.01)
