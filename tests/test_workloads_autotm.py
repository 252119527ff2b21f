"""The networks of the AutoTM paper: their sizes, and that they train."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import workloads
from benchmarks.workloads import densenet, inception, resnet, vgg
from benchmarks.workloads.autotm import NETWORKS


# Each network with the structure of the paper's, at the sizes of a tiny one.
SMALL = {
    "inception-v4": inception.TINY,
    "resnet-200": dataclasses.replace(resnet.TINY, strided="expand"),
    "densenet-264": dataclasses.replace(densenet.TINY, transition=8),
    "vgg-19": vgg.TINY,
    "vgg-416": dataclasses.replace(
        vgg.TINY, stages=((8,) * 3 + (16,), (16,) * 3 + (24,), (24,) * 4)
    ),
}


def arrays(name: str) -> Any:
    """The shapes of a network's parameters, as a tree."""
    return workloads.get(f"autotm-{name}").args[0][0]


def count(name: str, *kinds: str) -> int:
    """How many parameters a network has, of these kinds or of all."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays(name))
    return sum(
        math.prod(leaf.shape)
        for path, leaf in leaves
        if not kinds or path[-1].key in kinds
    )


def equations(name: str, primitive: str) -> list[Any]:
    """The equations of a network's step that are of this primitive."""
    workload = workloads.get(f"autotm-{name}")
    jaxpr = jax.make_jaxpr(workload.step)(*workload.args)
    return [eqn for eqn in jaxpr.eqns if eqn.primitive.name == primitive]


@pytest.mark.parametrize("name", NETWORKS)
def test_training_lowers_the_loss(name: str):
    workload = NETWORKS[name].build(SMALL[name], name)
    state, batch = workload.make(0)
    step = jax.jit(workload.step)
    losses = []
    for _ in range(8):
        state, loss = step(state, batch)
        losses.append(float(loss))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_inception_has_as_many_parameters_as_published():
    # As published, each convolution has a scale and a shift of its normalisation; here
    # it has a bias.
    assert count("inception-v4") + count("inception-v4", "bias") == 42_679_816


def test_vgg_19_has_as_many_parameters_as_published():
    assert count("vgg-19") == 143_667_240


def test_resnet_200_has_as_many_parameters_as_published():
    assert count("resnet-200") / 1e6 == pytest.approx(64.7, abs=0.06)


def test_densenet_264_hands_64_channels_from_block_to_block():
    total = 7 * 7 * 3 * 64 + 2 * 64
    for layers in (6, 12, 64, 48):
        # A layer reads 64 channels and 32 of each layer before. It normalises them,
        # makes 128 of them, normalises these, and makes 32 of these.
        read = 64 * layers + 32 * layers * (layers - 1) // 2
        total += (2 + 128) * read + (2 * 128 + 9 * 128 * 32) * layers
    for layers in (6, 12, 64):
        total += (2 + 64) * (64 + 32 * layers)
    total += (2 + 1000) * (64 + 32 * 48) + 1000
    assert count("densenet-264") == total == 21_122_792
    transitions = arrays("densenet-264")["transitions"]
    assert [each["kernel"].shape[3] for each in transitions] == [64] * 3


def test_vgg_416_has_416_layers():
    stages = arrays("vgg-416")["stages"]
    assert [len(stage) for stage in stages] == [82, 82, 83, 83, 83]
    kernels = [layer["kernel"] for stage in stages for layer in stage]
    assert {kernel.shape[:2] for kernel in kernels} == {(3, 3)}
    # Each of the 413 and 3 runs forward and backward for both of its operands; the
    # images need no gradient.
    assert len(equations("vgg-416", "conv_general_dilated")) == 3 * 413 - 1
    assert len(equations("vgg-416", "dot_general")) == 3 * 3


def test_a_stage_of_resnet_200_is_halved_by_its_last_convolution():
    halving = [
        eqn.invars[1].aval.shape
        for eqn in equations("resnet-200", "conv_general_dilated")
        if eqn.params["window_strides"] == (2, 2)
    ]
    assert halving == [
        (7, 7, 3, 64),
        *[
            (1, 1, inputs, 4 * inner)
            for inner in (128, 256, 512)
            for inputs in (inner, 2 * inner)  # the last convolution and the shortcut
        ],
    ]


def test_the_resolutions_of_inception():
    shapes = [
        eqn.outvars[0].aval.shape for eqn in equations("inception-v4", "concatenate")
    ]
    joined = [shape[1:] for shape in shapes if len(shape) == 4]
    assert joined[:3] == [(73, 73, 160), (71, 71, 192), (35, 35, 384)]
    assert joined[3:7] == [(35, 35, 384)] * 4
    assert joined[7:15] == [(17, 17, 1024)] * 8
    assert joined[15] == (8, 8, 1536)
    # A block C joins the ends of two forks first.
    assert joined[16:] == [(8, 8, 512), (8, 8, 512), (8, 8, 1536)] * 3


@pytest.mark.parametrize(
    ("name", "size", "conventional", "large", "gpu"),
    [
        ("inception-v4", 299, 1024, 6144, (64, 128, 256)),
        ("resnet-200", 224, 512, 2560, (32, 64, 128)),
        ("densenet-264", 224, 512, 3072, (32, 64, 128)),
        ("vgg-19", 224, 2048, None, (64, 128)),
        ("vgg-416", 224, None, 320, ()),
    ],
)
def test_batches_are_those_of_the_paper(
    name: str,
    size: int,
    conventional: int | None,
    large: int | None,
    gpu: tuple[int, ...],
):
    network = NETWORKS[name]
    found = network.conventional, network.large, network.gpu
    assert found == (conventional, large, gpu)
    for batch in (conventional, large, *gpu):
        if batch is not None:
            workload = network.workload(batch)
            assert workload.name == f"{name}-batch-{batch}"
            images = workload.args[1]["images"]
            assert images.shape == (batch, size, size, 3)
            assert {leaf.dtype for leaf in jax.tree.leaves(workload.args[0])} == {
                np.dtype(np.float32)
            }
