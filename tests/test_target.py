import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autotm_jax as autotm
from autotm_jax import Target, TargetError
from autotm_jax.machine import describe

from .compiling import needs_cuda_plugin


GPUS = [n for n in autotm.known_machines() if n != "cpu"]


def test_the_default_device():
    target = autotm.target()
    assert target.is_present
    assert target.machine.name == "cpu"
    assert target.sharding is None
    tree = {"x": np.ones(3), "n": 2}
    assert target.place(tree) is tree


def test_a_target_is_returned():
    target = autotm.target("h100-sxm")
    assert autotm.target(target) is target


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_can_be_compiled_for(name: str):
    target = autotm.target(name)
    assert target.machine == describe(name)
    assert not target.is_present
    assert target.config is not None
    assert "device_memory_size" in target.config


def test_an_unknown_one_lists_the_known():
    text = "There is no machine 'tpu'. The machines described are: a100-sxm-80gb, cpu"
    with pytest.raises(TargetError, match=re.escape(text)):
        autotm.target("tpu")
    with pytest.raises(TargetError, match=re.escape(text)):
        autotm.jit(lambda x: x, target="tpu")


@pytest.mark.parametrize("bad", [3, 1.5, ["h100-sxm"], True])
def test_a_bad_type(bad: Any):
    text = (
        f"target is {bad!r}, a {type(bad).__name__}. Give the name of a machine "
        "(a100-sxm-80gb, cpu, h100-sxm, h200-sxm), a Target, or None."
    )
    with pytest.raises(TargetError, match=re.escape(text)):
        autotm.target(bad)


def test_a_cpu_is_no_target():
    text = (
        "The machine 'cpu' is described for cost models only: XLA cannot compile for "
        "it while it is absent."
    )
    with pytest.raises(TargetError, match=re.escape(text)):
        autotm.target("cpu")


def test_another_amount_of_memory():
    h100 = autotm.target("h100-sxm")
    small = h100.with_memory(2**30)
    assert small.machine.device_bytes == 2**30
    assert small.machine.flops == h100.machine.flops
    assert small.config is not None and h100.config is not None
    assert f"device_memory_size: {2**30}" in small.config
    assert small != h100
    assert autotm.target("h100-sxm").machine.device_bytes > 2**30


def test_the_memory_of_a_present_device_is_its_own():
    text = "The memory of a present device cannot be changed."
    with pytest.raises(TargetError, match=text):
        autotm.target().with_memory(2**30)


@needs_cuda_plugin
def test_placing_a_tree():
    target = autotm.target("h100-sxm")
    tree = {
        "array": jnp.ones((2, 3), jnp.bfloat16),
        "numpy": np.ones(4, np.float32),
        "struct": jax.ShapeDtypeStruct((5,), jnp.int32),
        "key": jax.random.key(0),
        "weak": jnp.asarray(2.0) * 1,
        "none": None,
    }
    placed = target.place(tree)
    assert jax.tree.structure(placed) == jax.tree.structure(tree)
    for name in ("array", "numpy", "struct", "key"):
        assert placed[name].shape == tree[name].shape
        assert placed[name].dtype == tree[name].dtype
        assert placed[name].sharding == target.sharding
    assert placed["weak"].weak_type == tree["weak"].weak_type
    (device,) = target.sharding.device_set
    assert "H100" in device.device_kind


def test_a_target_without_the_plugin():
    target = Target(describe("h100-sxm"), "this is no configuration")
    text = (
        "Compiling for a GPU that is not here needs JAX's CUDA plugin: "
        "pip install 'autotm-jax[cuda-compile]' (JAX said: "
    )
    with pytest.raises(TargetError, match=re.escape(text)):
        target.place(np.ones(3))
