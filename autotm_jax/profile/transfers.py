"""Copies between `device` and `pinned_host` memory, timed and fitted.

A copy of `n` bytes takes `latency + n / bandwidth` seconds. Copies from 4 KiB to 1 GiB
are timed inside a compiled program, where a plan's copies are; both figures are fitted
to those of 1 MiB and more, which are what a plan moves, by least squares of the
relative error. Eager `jax.device_put` is timed beside them. On a CPU both memory kinds
are the same memory, and what is timed is a copy within it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from scipy.optimize import nnls
from tqdm import tqdm

from ..config import hides_progress
from . import cache
from .alone import free_bytes
from .profiler import device_name, stored_here
from .timing import Protocol, Timing, measure


SIZES = tuple(2**k for k in range(12, 31, 2))
COMPILED = ("d2h", "h2d", "both")
EAGER = ("d2h eager", "h2d eager")

_SMALLEST_FITTED = 2**20
_PROTOCOL = Protocol(warm_up=1, fewest=5, most=20, time_limit=0.5)

# What the buffers of one measurement may take of the memory that is free.
_SHARE_OF_FREE = 0.1

# Part of every cache key: raise it when copies are timed differently.
_HARNESS = 1


@dataclasses.dataclass(frozen=True)
class Fit:
    """Seconds of a copy as `latency + nbytes / bandwidth`.

    - `latency`: seconds.
    - `bandwidth`: bytes per second.
    - `error`: the largest relative error of the fit among the sizes it was made from.
    """

    latency: float
    bandwidth: float
    error: float

    def seconds(self, nbytes: int) -> float:
        """Seconds of a copy of so many bytes."""
        return self.latency + nbytes / self.bandwidth


@dataclasses.dataclass(frozen=True)
class Transfers:
    """What copies cost on a device.

    - `device`: which.
    - `timings`: by direction and bytes; for `"both"`, the bytes each way.
    - `fits`: by direction; the bandwidth of `"both"` is that of the two together.
    """

    device: str
    timings: dict[str, dict[int, Timing]]
    fits: dict[str, Fit]

    def __str__(self) -> str:
        names = {
            "d2h": "to the host",
            "h2d": "from the host",
            "both": "both at once",
            "d2h eager": "to the host, eager",
            "h2d eager": "from the host, eager",
        }
        rows = [f"Copies between device and pinned_host memory on {self.device}"]
        if self.device.startswith("cpu"):
            rows.append("(one memory on a CPU: these are copies within it)")
        for direction, fit in self.fits.items():
            rows.append(
                f"  {names[direction]:<21} {fit.bandwidth / 1e9:>8.2f} GB/s"
                f"  {fit.latency * 1e6:>8.1f} us  fit within {fit.error:.0%}"
            )
        return "\n".join(rows)


def fit(seconds: dict[int, float]) -> Fit:
    """Fits a latency and a bandwidth to the seconds of copies by their bytes.

    **Arguments:**

    - `seconds`: by bytes; at least two sizes. Those below 1 MiB are left out where
        two others remain.

    **Returns:**

    A `Fit`: least squares of the relative error, neither part negative.
    """
    large = [n for n in sorted(seconds) if n >= _SMALLEST_FITTED]
    sizes = np.array(large if len(large) > 1 else sorted(seconds), dtype=float)
    times = np.array([seconds[int(n)] for n in sizes])
    rows = np.stack([1 / times, sizes / times], axis=1)
    scale = np.abs(rows).max(axis=0)
    (latency, per_byte), _ = nnls(rows / scale, np.ones(len(sizes)))
    latency, per_byte = latency / scale[0], per_byte / scale[1]
    error = float(np.abs((latency + sizes * per_byte) / times - 1).max())
    bandwidth = 1 / float(per_byte) if per_byte > 0 else math.inf
    return Fit(float(latency), bandwidth, error)


def measure_transfers(
    sizes: Sequence[int] = SIZES,
    directions: Sequence[str] = COMPILED + EAGER,
    progress: bool | None = None,
) -> Transfers:
    """Times copies on the default device, or reads what was timed before.

    **Arguments:**

    - `sizes`: bytes. Those that do not fit into a tenth of the free memory are left
        out.
    - `directions`: of `COMPILED` and `EAGER`.
    - `progress`: show a progress bar; by default where standard error is a terminal.

    **Returns:**

    `Transfers`.
    """
    room = _SHARE_OF_FREE * free_bytes(jax.local_devices()[0])
    fitting = [n for n in sizes if 2 * n <= room]
    key = stored_here("transfers", _HARNESS, fitting, tuple(directions))
    known = _read(cache.load("transfers", key))
    if known is not None:
        return known
    tasks = [(direction, n) for direction in directions for n in fitting]
    hidden = hides_progress(progress)
    timings: dict[str, dict[int, Timing]] = {d: {} for d in directions}
    with cache.alone(device_name()):
        for direction, nbytes in tqdm(
            tasks, "timing copies", disable=hidden, unit="", leave=False
        ):
            timings[direction][nbytes] = _time(direction, nbytes)
    found = _fitted(device_name(), timings)
    cache.store("transfers", key, _write(found))
    return found


def _time(direction: str, nbytes: int) -> Timing:
    device = jax.local_devices()[0]
    here = jax.sharding.SingleDeviceSharding(device)
    away = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
    near = jax.device_put(np.zeros(nbytes // 4, np.float32), here)
    far = jax.device_put(near, away)
    runs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "d2h": (jax.jit(_to_host), (near,)),
        "h2d": (jax.jit(_to_device), (far,)),
        "both": (jax.jit(lambda x, y: (_to_host(x), _to_device(y))), (near, far)),
        "d2h eager": (lambda x: jax.device_put(x, away), (near,)),
        "h2d eager": (lambda x: jax.device_put(x, here), (far,)),
    }
    run, inputs = runs[direction]
    return measure(run, [inputs], _PROTOCOL)


def _to_host(x: Any) -> Any:
    return jax.device_put(x, jax.memory.Space.Host)


def _to_device(x: Any) -> Any:
    return jax.device_put(x, jax.memory.Space.Device)


def _fitted(device: str, timings: dict[str, dict[int, Timing]]) -> Transfers:
    fits: dict[str, Fit] = {}
    for direction, by_size in timings.items():
        if len(by_size) < 2:
            continue
        found = fit({n: t.seconds for n, t in by_size.items()})
        if direction == "both":
            found = dataclasses.replace(found, bandwidth=2 * found.bandwidth)
        fits[direction] = found
    return Transfers(device, timings, fits)


def _write(found: Transfers) -> dict[str, Any]:
    timings = {
        direction: {str(n): dataclasses.asdict(t) for n, t in by_size.items()}
        for direction, by_size in found.timings.items()
    }
    return {"device": found.device, "timings": timings}


def _read(entry: Any) -> Transfers | None:
    try:
        timings = {
            direction: {int(n): Timing(**t) for n, t in by_size.items()}
            for direction, by_size in entry["timings"].items()
        }
        return _fitted(entry["device"], timings)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
