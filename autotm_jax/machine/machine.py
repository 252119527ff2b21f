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
    - `copy_reach`: seconds before its use at which XLA starts a copy at the earliest.
    - `flops`: floating-point operations per second by dtype name, with a `default`.
    - `source`: where the figures come from.
    - `has_host_memory`: whether there is `pinned_host` memory to move to.
    """

    name: str
    platform: str
    device_bytes: int
    host_bytes: int
    device_bandwidth: float
    d2h_bandwidth: float
    h2d_bandwidth: float
    duplex_bandwidth: float
    transfer_latency: float
    copy_reach: float
    launch_overhead: float
    flops: dict[str, float] = dataclasses.field(hash=False)
    source: str = "described"
    has_host_memory: bool = True

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


# What JAX calls a device, and the description that is nearest to it.
_DEVICE_KINDS = {"H200": "h200-sxm", "H100": "h100-sxm", "A100": "a100-sxm-80gb"}


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
    source = f"described, as {nearest}"
    return dataclasses.replace(
        machine,
        name=device.device_kind,
        device_bytes=limit,
        source=source,
        has_host_memory=has_host,
    )
