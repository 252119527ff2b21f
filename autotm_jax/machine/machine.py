"""What a machine is, and the machines described by data files."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np

from ..errors import TargetError


@dataclasses.dataclass(frozen=True)
class Machine:
    """A device with its host, as a cost model sees them.

    - `name`, `platform`: what it is called, and JAX's name of its backend.
    - `device_bytes`, `host_bytes`: capacity of `device` and `pinned_host` memory;
        0 if unknown.
    - `device_bandwidth`: bytes per second of device memory.
    - `d2h_bandwidth`, `h2d_bandwidth`, `duplex_bandwidth`: bytes per second to the
        host, from the host, and both together when both run.
    - `transfer_latency`, `launch_overhead`: seconds per copy and per kernel.
    - `mesh_bandwidth`: bytes per second that a device of a mesh receives from others.
    - `copy_reach`: seconds before its use at which XLA starts a copy at the earliest.
    - `flops`: floating-point operations per second by dtype name, with a `default`.
    - `source`: where the figures come from, in a word.
    - `has_host_memory`: whether there is `pinned_host` memory to move to.
    - `device_price`, `host_price`: US dollars per GiB of each memory, for studies of
        cost; 0 if unknown.
    - `sources`: where each figure comes from, by field name: a document, or
        "measured ...", "assumed: ..." with how it was estimated, or "unknown: ...".
    """

    name: str
    platform: str
    device_bytes: int
    host_bytes: int
    device_bandwidth: float
    d2h_bandwidth: float
    h2d_bandwidth: float
    duplex_bandwidth: float
    mesh_bandwidth: float
    transfer_latency: float
    copy_reach: float
    launch_overhead: float
    flops: dict[str, float] = dataclasses.field(hash=False)
    source: str = "described"
    has_host_memory: bool = True
    device_price: float = 0.0
    host_price: float = 0.0
    sources: dict[str, str] = dataclasses.field(hash=False, default_factory=dict)

    def flop_rate(self, dtype: object) -> float:
        """Floating-point operations per second of contractions in `dtype`."""
        return self.flops.get(np.dtype(dtype).name, self.flops["default"])  # pyright: ignore


def _described() -> Traversable:
    return resources.files("autotm_jax.machine") / "described"


def known_machines() -> list[str]:
    """The names of the machines described in this package."""
    names = (entry.name for entry in _described().iterdir())
    return sorted(n.removesuffix(".toml") for n in names if n.endswith(".toml"))


@functools.cache
def describe(name: str) -> Machine:
    """The described machine of that name.

    **Arguments:**

    - `name`: one of `known_machines()`.

    **Returns:**

    A `Machine`.

    **Raises:**

    - `TargetError`: if there is no such machine; the message lists the known ones.
    """
    if name not in known_machines():
        known = ", ".join(known_machines())
        raise TargetError(
            f"There is no machine {name!r}. The machines described are: {known}."
        )
    text = (_described() / f"{name}.toml").read_text()
    return Machine(**tomllib.loads(text))


@functools.cache
def target_config(name: str) -> str | None:
    """XLA's description of a machine, as text; `None` where there is none."""
    entry = _described() / f"{name}.txtpb"
    return entry.read_text() if entry.is_file() else None


# A part of what JAX calls a device, and the description that is nearest to it. The
# first that is found counts, so a part of another one comes after it.
_DEVICE_KINDS = {
    "GH200": "gh200",
    "H200": "h200-sxm",
    "H100 PCIe": "h100-pcie",
    "H100": "h100-sxm",
    "A100": "a100-sxm-80gb",
    "B200": "b200",
    "RTX 4090": "rtx-4090",
}


def machine_of(device: Any) -> Machine:
    """The cost model of a present device: the description nearest to it.

    Capacities are the device's own where it reports them.
    """
    kinds = {memory.kind for memory in device.addressable_memories()}
    has_host = "pinned_host" in kinds
    if device.platform not in ("gpu", "cuda"):
        return dataclasses.replace(describe("cpu"), has_host_memory=has_host)
    nearest = next(
        (n for part, n in _DEVICE_KINDS.items() if part in device.device_kind),
        "h100-sxm",
    )
    machine = describe(nearest)
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit", machine.device_bytes)
    reported = {"device_bytes": "reported by the device"}
    return dataclasses.replace(
        machine,
        name=device.device_kind,
        device_bytes=limit,
        source=f"described, as {nearest}",
        has_host_memory=has_host,
        sources=machine.sources | (reported if "bytes_limit" in stats else {}),
    )
