import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import workloads
from benchmarks.baselines import CHECKPOINT_POLICIES
from benchmarks.workloads import gpt, llama, resnet

from .steps import MORE, TINY, get


@pytest.mark.parametrize("name", (*TINY, *MORE))
def test_training_lowers_the_loss(name: str):
    workload = get(name)
    state, batch = workload.make(0)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (state, batch))
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), workload.args)
    step = jax.jit(workload.step)
    losses = []
    for _ in range(8):
        state, loss = step(state, batch)
        losses.append(float(loss))
    assert np.isfinite(losses).all()
    assert min(losses[4:]) < losses[0]


def parameters(name: str) -> Any:
    """The shapes of a workload's parameters."""
    return workloads.get(name).args[0][0]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet-50", 25.6), ("resnet-200", 64.7), ("densenet-264", 33.3)],
)
def test_networks_have_as_many_parameters_as_published(name: str, millions: float):
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(parameters(name)))
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def test_dense_networks_have_the_layers_and_channels_of_densenet_264():
    found = parameters("densenet-264")
    inputs = [
        [layer["narrow"]["kernel"].shape[2] for layer in block]
        for block in found["blocks"]
    ]
    # Each layer adds 32 channels, and a block starts with half of what the last made.
    assert [len(block) for block in inputs] == [6, 12, 64, 48]
    assert [block[0] for block in inputs] == [64, 128, 256, 1152]
    assert all(np.diff(block).tolist() == [32] * (len(block) - 1) for block in inputs)
    assert {
        (layer["narrow"]["kernel"].shape[3], layer["spread"]["kernel"].shape)
        for block in found["blocks"]
        for layer in block
    } == {(128, (3, 3, 128, 32))}
    assert found["head"].shape == (2688, 1000)


@pytest.mark.parametrize("layers", [12, 24, 48, 96])
def test_the_layers_of_a_transformer_are_in_its_name(layers: int):
    found = parameters(f"gpt-{layers}")
    assert len(found["layers"]) == layers
    assert found["tokens"].shape == (32000, 1024)


def test_a_name_that_is_not_there():
    with pytest.raises(ValueError, match="No workload is called 'gpt-13'"):
        workloads.get("gpt-13")


@pytest.mark.parametrize("model", [gpt, llama, resnet], ids=lambda m: m.__name__[-6:])
@pytest.mark.parametrize("policy", ["nothing_saveable", "offload_layer_inputs"])
def test_policies_of_checkpoint_change_no_loss(model: Any, policy: str):
    losses = []
    for remat in (None, CHECKPOINT_POLICIES[policy]):
        workload = model.workload(dataclasses.replace(model.TINY, remat=remat))
        jaxpr = str(jax.make_jaxpr(workload.step)(*workload.args))
        assert ("layer_input" in jaxpr) == (remat is not None)
        _, loss = jax.jit(workload.step)(*workload.make(0))
        losses.append(float(loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
