"""What the device does by itself: products of matrices, memory, and copies.

Everything is timed as the library times it, and kept in the same cache: what is shown
is what plans are made from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import autotm_jax as autotm
from autotm_jax.profile import measure_transfers
from autotm_jax.profile.alone import random_inputs
from autotm_jax.profile.timing import Protocol, measure

from .reasons import reason_of


SIDES = {"cpu": (256,), "gpu": (2048, 8192)}
"""Of square matrices, by platform."""

# Each is a dtype and how exact products are; of float32, JAX rounds operands to TF32 on
# a GPU unless it is told otherwise.
_KINDS = (
    ("float32", "default"),
    ("float32", "highest"),
    ("bfloat16", "default"),
    ("float16", "default"),
    ("float8_e4m3fn", "default"),
)
_PROTOCOL = Protocol(time_limit=0.4, most=20)


def machine() -> autotm.Machine:
    """The machine that is here, measured."""
    return autotm.machine(progress=False)


def products(sides: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Rates of products of square matrices, by dtype and side.

    **Arguments:**

    - `sides`: `None` for those of the platform.

    **Returns:**

    One entry for each, as what `json` can write: with `flops`, per second, or with the
    reason for which there are none as `error`.
    """
    platform = "cpu" if jax.local_devices()[0].platform == "cpu" else "gpu"
    found: list[dict[str, Any]] = []
    for dtype, precision in _KINDS:
        for side in sides or SIDES[platform]:
            entry: dict[str, Any] = {"dtype": dtype, "precision": precision}
            entry["side"] = side
            try:
                entry["flops"] = 2 * side**3 / _seconds(dtype, precision, side)
            except Exception as error:  # noqa: BLE001 - not every dtype works everywhere
                entry["error"] = reason_of(error)
            found.append(entry)
    return found


def _seconds(dtype: str, precision: str, side: int) -> float:
    result = jnp.bfloat16 if dtype.startswith("float8") else jnp.dtype(dtype)

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.matmul(x, y, precision=precision, preferred_element_type=result)

    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = [jax.ShapeDtypeStruct((side, side), jnp.bfloat16)] * 2
    made = [random_inputs(shapes, [place] * 2, seed) for seed in range(2)]
    inputs = [[x.astype(dtype) for x in pair] for pair in made]
    compiled = jax.jit(product).lower(*inputs[0]).compile()
    return measure(compiled, inputs, _PROTOCOL).seconds


def copies() -> list[dict[str, Any]]:
    """Copies between device and host, by direction and bytes.

    **Returns:**

    One entry for each, with its `seconds`, their `spread`, and bytes per second: of
    both directions together where both are under way.
    """
    timed = measure_transfers(progress=False)
    return [
        {
            "direction": direction,
            "bytes": nbytes,
            "seconds": timing.seconds,
            "spread": timing.spread,
            "bandwidth": nbytes * (1 + (direction == "both")) / timing.seconds,
        }
        for direction, by_size in timed.timings.items()
        for nbytes, timing in by_size.items()
    ]


def as_json(found: autotm.Machine) -> dict[str, Any]:
    """A machine as what `json` can write, and `from_json` reads."""
    return dataclasses.asdict(found)


def from_json(found: Mapping[str, Any]) -> autotm.Machine:
    """A machine as it was written."""
    return autotm.Machine(**found)
