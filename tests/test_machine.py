import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from autotm_jax import Machine, TargetError, known_machines
from autotm_jax.machine import describe, machine_of


CPUS = ["cpu", "optane-host"]

# What a description says of a machine that is no figure.
NO_FIGURES = {"name", "platform", "source", "has_host_memory", "sources"}

# GiB of device memory: as sold, and so a little more than a driver reports.
SOLD = {
    "a100-sxm-80gb": 80,
    "b200": 180,
    "gh200": 96,
    "h100-pcie": 80,
    "h100-sxm": 80,
    "h200-sxm": 141,
    "optane-host": 192,
    "rtx-2080-ti": 11,
    "rtx-4090": 24,
}


def test_the_known_machines():
    assert known_machines() == sorted([*SOLD, "cpu"])


@pytest.mark.parametrize("name", known_machines())
def test_every_description_makes_sense(name: str):
    machine = describe(name)
    assert machine.name == name
    assert machine.source == "described"
    assert machine.platform == ("cpu" if name in CPUS else "cuda")
    one_way = (machine.d2h_bandwidth, machine.h2d_bandwidth)
    assert 0 < max(one_way) <= machine.duplex_bandwidth <= sum(one_way)
    assert machine.device_bandwidth > machine.duplex_bandwidth
    assert 0 < machine.transfer_latency < 1e-3
    assert 0 < machine.launch_overhead < 1e-3
    assert machine.copy_reach >= 0
    assert all(rate > 0 for rate in machine.flops.values())
    assert machine.device_price >= 0
    assert machine.host_price >= 0
    if name in SOLD:
        assert 0.88 * SOLD[name] < machine.device_bytes / 2**30 < SOLD[name]
        assert machine.host_bytes > 0
        assert machine.device_price > machine.host_price > 0


@pytest.mark.parametrize("name", known_machines())
def test_every_figure_has_a_source(name: str):
    machine = describe(name)
    figures = {field.name for field in dataclasses.fields(Machine)} - NO_FIGURES
    assert set(machine.sources) == figures
    for figure, source in machine.sources.items():
        assert source.strip(), figure
        is_unknown = source.startswith("unknown: ")
        assert is_unknown == (getattr(machine, figure) == 0 and name == "cpu"), figure


def test_optane_is_larger_slower_and_cheaper_than_dram():
    machine = describe("optane-host")
    assert machine.host_bytes > 4 * machine.device_bytes
    assert machine.d2h_bandwidth < machine.h2d_bandwidth < machine.device_bandwidth
    assert machine.device_price == pytest.approx(2.1 * machine.host_price)


def test_an_unknown_machine():
    text = (
        "There is no machine 'h100'. The machines described are: a100-sxm-80gb, b200, "
        "cpu, gh200, h100-pcie, h100-sxm, h200-sxm, optane-host, rtx-2080-ti, "
        "rtx-4090."
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
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
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
    assert found.sources["device_bytes"] == "reported by the device"
    assert found.sources["flops"] == describe(nearest).sources["flops"]
    silent = machine_of(device(kind, None))  # pyright: ignore
    assert silent.device_bytes == describe(nearest).device_bytes
    assert silent.sources == describe(nearest).sources


def test_this_device():
    assert machine_of(jax.devices()[0]) == describe("cpu")
