import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from autotm_jax import Machine, TargetError, known_machines
from autotm_jax.machine import describe, machine_of


def test_the_known_machines():
    assert known_machines() == ["a100-sxm-80gb", "cpu", "h100-sxm", "h200-sxm"]


@pytest.mark.parametrize("name", known_machines())
def test_every_description_makes_sense(name: str):
    machine = describe(name)
    assert machine.name == name
    assert machine.source == "described"
    assert machine.platform == ("cpu" if name == "cpu" else "cuda")
    one_way = (machine.d2h_bandwidth, machine.h2d_bandwidth)
    assert 0 < max(one_way) <= machine.duplex_bandwidth <= sum(one_way)
    assert machine.device_bandwidth > machine.duplex_bandwidth
    assert 0 < machine.transfer_latency < 1e-3
    assert 0 < machine.launch_overhead < 1e-3
    assert all(rate > 0 for rate in machine.flops.values())
    if machine.platform == "cuda":
        assert 70 * 2**30 < machine.device_bytes < 150 * 2**30


def test_an_unknown_machine():
    text = (
        "There is no machine 'h100'. The machines described are: a100-sxm-80gb, cpu, "
        "h100-sxm, h200-sxm."
    )
    with pytest.raises(TargetError, match=re.escape(text)):
        describe("h100")


def test_flop_rates():
    h100 = describe("h100-sxm")
    assert h100.flop_rate(jnp.bfloat16) > h100.flop_rate(jnp.float32)
    assert h100.flop_rate(jnp.float32) > h100.flop_rate(jnp.float64)
    assert h100.flop_rate(jnp.int32) == h100.flops["default"]
    assert hash(h100) == hash(describe("h100-sxm"))


def device(kind: str, stats: dict[str, int] | None) -> SimpleNamespace:
    """Looks like a GPU to a cost model."""
    return SimpleNamespace(
        platform="gpu",
        device_kind=kind,
        memory_stats=lambda: stats,
        addressable_memories=lambda: [SimpleNamespace(kind="pinned_host")],
    )


@pytest.mark.parametrize(
    ("kind", "nearest"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA Something", "h100-sxm"),
    ],
)
def test_the_nearest_description(kind: str, nearest: str):
    found = machine_of(device(kind, {"bytes_limit": 12345}))  # pyright: ignore
    assert isinstance(found, Machine)
    assert found.name == kind
    assert found.source == f"described, as {nearest}"
    assert found.device_bytes == 12345
    assert found.flops == describe(nearest).flops
    silent = machine_of(device(kind, None))  # pyright: ignore
    assert silent.device_bytes == describe(nearest).device_bytes


def test_this_device():
    assert machine_of(jax.devices()[0]) == describe("cpu")
