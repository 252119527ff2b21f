import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autotm_jax as autotm
from autotm_jax import Target, TargetError
from autotm_jax.machine import describe
from autotm_jax.machine.machine import target_config

from .compiling import needs_cuda_plugin


GPUS = [n for n in autotm.known_machines() if target_config(n) is not None]
MODELS = [n for n in autotm.known_machines() if n not in GPUS]
ALL = "a100-sxm-80gb, b200, cpu, gh200, h100-pcie, h100-sxm, h200-sxm, optane-host, "


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
    assert target.machine.platform == "cuda"
    assert f"device_memory_size: {target.machine.device_bytes}\n" in target.config


@needs_cuda_plugin
@pytest.mark.parametrize("name", GPUS)
def test_xla_compiles_for_every_such_gpu(name: str):
    x = autotm.target(name).place(jax.ShapeDtypeStruct((256, 256), jnp.bfloat16))
    assert autotm.device_bytes(jax.jit(lambda x: jnp.tanh(x @ x)).lower(x).compile())


def test_an_unknown_one_lists_the_known():
    text = (
        "There is no machine 'tpu'. The machines described are: "
        f"{ALL}rtx-2080-ti, rtx-4090."
    )
    with pytest.raises(TargetError, match=re.escape(text)):
        autotm.target("tpu")
    with pytest.raises(TargetError, match=re.escape(text)):
        autotm.jit(lambda x: x, target="tpu")


@pytest.mark.parametrize("bad", [3, 1.5, ["h100-sxm"], True])
def test_a_bad_type(bad: Any):
    text = (
        f"target is {bad!r}, a {type(bad).__name__}. Give the name of a machine "
        f"({ALL}rtx-2080-ti, rtx-4090), a Target, or None."
    )
    with pytest.raises(TargetError, match=re.escape(text)):
        autotm.target(bad)


def test_the_machines_for_cost_models_only():
    assert MODELS == ["cpu", "gh200", "optane-host", "rtx-2080-ti", "rtx-4090"]


@pytest.mark.parametrize("name", MODELS)
def test_a_cost_model_is_no_target(name: str):
    text = (
        f"The machine {name!r} is described for cost models only: XLA cannot compile "
        "for it while it is absent."
    )
    with pytest.raises(TargetError, match=re.escape(text)):
        autotm.target(name)


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
        "Compiling for a GPU that is not here needs JAX's CUDA plugin, and JAX must "
        "not look for a GPU here: pip install 'autotm-jax[cuda-compile]', and set "
        "JAX_PLATFORMS=cpu before Python starts (JAX said: "
    )
    with pytest.raises(TargetError, match=re.escape(text)):
        target.place(np.ones(3))
