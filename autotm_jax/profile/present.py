"""The machine that is here, with what can be measured of it measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .. import compat
from ..machine import Machine, machine_of, physical_bytes
from . import cache
from .alone import free_bytes, random_inputs
from .profiler import device_name, stored_here
from .timing import Protocol, measure
from .transfers import COMPILED, Transfers, measure_transfers


# Side of the matrices that flop rates are taken with, and bytes that bandwidth is.
_SIDE = {"cpu": 1024, "gpu": 8192}
_STREAMED_BYTES = {"cpu": 2**27, "gpu": 2**31}
_DTYPES = ("float32", "bfloat16", "float16")

_FEW_SIZES = (2**20, 2**23, 2**26, 2**28)

# Part of every cache key: raise it when rates are measured differently.
_HARNESS = 1


def machine(progress: bool | None = None) -> Machine:
    """Detects and measures the default device and its host.

    Copies each way and both ways, the bandwidth of device memory, the time of an empty
    call and the flop rates of large matrix products are measured, once per device and
    JAX version; the rest is the description nearest to the device.

    !!! Example

        ```python
        print(autotm.machine().d2h_bandwidth)   # bytes per second, measured
        ```

    **Arguments:**

    - `progress`: show a progress bar; by default where standard error is a terminal.

    **Returns:**

    A `Machine`; its `sources` say which figure is measured.
    """
    device = jax.local_devices()[0]
    nearest = machine_of(device)
    found: dict[str, Any] = {}
    if nearest.has_host_memory:
        found |= _link(measure_transfers(progress=progress))
    rates = _rates("cpu" if device.platform == "cpu" else "gpu")
    flops = {k: v for k, v in rates.items() if k in _DTYPES}
    found |= {k: v for k, v in rates.items() if k not in _DTYPES}
    if not nearest.host_bytes:
        found["host_bytes"] = physical_bytes()
    said = f"measured on this {device.device_kind} with JAX {compat.JAX_VERSION}"
    return dataclasses.replace(
        nearest,
        **found,
        flops={**nearest.flops, **flops},
        source="measured",
        sources={**nearest.sources, **dict.fromkeys((*found, "flops"), said)},
    )


def with_measured_link(machine: Machine, progress: bool | None = None) -> Machine:
    """A present machine with the bandwidths and the latency of its copies measured.

    **Arguments:**

    - `machine`: as described.
    - `progress`: show a progress bar; by default where standard error is a terminal.

    **Returns:**

    A `Machine`; the same where nothing could be timed. A few sizes are enough for that.
    """
    if not machine.has_host_memory:
        return machine
    found = _link(measure_transfers(_FEW_SIZES, COMPILED, progress))
    if not found:
        return machine
    said = f"measured on this device with JAX {compat.JAX_VERSION}"
    sources = {**machine.sources, **dict.fromkeys(found, said)}
    source = f"{machine.source}, copies measured"
    return dataclasses.replace(machine, **found, source=source, sources=sources)


def _link(transfers: Transfers) -> dict[str, float]:
    fits = transfers.fits
    if not {"d2h", "h2d", "both"} <= set(fits):
        return {}
    one_way = fits["d2h"].bandwidth, fits["h2d"].bandwidth
    # Both at once move at least what one direction does alone, at most the sum.
    together = min(max(fits["both"].bandwidth, *one_way), sum(one_way))
    return {
        "d2h_bandwidth": one_way[0],
        "h2d_bandwidth": one_way[1],
        "duplex_bandwidth": together,
        "transfer_latency": max(fits["d2h"].latency, fits["h2d"].latency, 1e-9),
    }


def _rates(platform: str) -> dict[str, float]:
    key = stored_here("rates", _HARNESS)
    known = cache.load("machine", key)
    if isinstance(known, dict) and all(isinstance(v, float) for v in known.values()):
        return known
    with cache.alone(device_name()):
        out = {"launch_overhead": _seconds(lambda x: x + 1, (), "float32")}
        elements = _STREAMED_BYTES[platform] // 4
        if 8 * elements < 0.5 * free_bytes(jax.local_devices()[0]):
            taken = _seconds(lambda x: x + 1, (elements,), "float32")
            out["device_bandwidth"] = 8 * elements / taken
        side = _SIDE[platform]
        for dtype in _DTYPES:
            taken = _seconds(lambda x: x @ x, (side, side), dtype)
            out[dtype] = 2 * side**3 / taken
    cache.store("machine", key, out)
    return out


def _seconds(
    step: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: str
) -> float:
    aval = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    inputs = [random_inputs([aval], [place], seed) for seed in range(2)]
    compiled = jax.jit(step).lower(*inputs[0]).compile()
    return measure(compiled, inputs, Protocol(time_limit=0.5, most=20)).seconds
