"""The bytes of a value on a device."""

from __future__ import annotations

import math
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

from .. import compat


def nbytes_of(aval: Any, sharding: NamedSharding | None = None) -> int:
    """Bytes of an abstract value on each device.

    **Arguments:**

    - `aval`: of the whole array.
    - `sharding`: how it is divided; `None` if every device has all of it.
    """
    if not hasattr(aval, "shape") or not hasattr(aval, "dtype"):
        return 0  # a token or another abstract value without storage
    if compat.is_on_host(aval):
        return 0  # where the user has put it
    bits = compat.itemsize_bits(aval.dtype)
    return (math.prod(shard_shape(aval.shape, sharding)) * bits + 7) // 8


def shard_shape(
    shape: tuple[int, ...], sharding: NamedSharding | None
) -> tuple[int, ...]:
    """The shape of what a device has of an array; of the largest part, if they differ.

    **Arguments:**

    - `shape`: of the whole array.
    - `sharding`: how it is divided; `None` if every device has all of it.
    """
    if sharding is None:
        return shape
    sizes = dict(sharding.mesh.shape)
    ways = (
        math.prod(sizes[n] for n in names) for names in axes_of(sharding, len(shape))
    )
    return tuple(-(-size // n) for size, n in zip(shape, ways, strict=True))


def axes_of(sharding: NamedSharding, ndim: int) -> tuple[tuple[str, ...], ...]:
    """By dimension of an array, the axes of the mesh that divide it."""

    def names(entry: Any) -> tuple[str, ...]:
        if entry is None or entry is PartitionSpec.UNCONSTRAINED:
            return ()
        return entry if isinstance(entry, tuple) else (entry,)

    found = tuple(map(names, sharding.spec))
    return found + ((),) * (ndim - len(found))


def ways_of(shape: tuple[int, ...], sharding: NamedSharding | None) -> float:
    """How many times an array is larger than what a device has of it."""
    whole, part = math.prod(shape), math.prod(shard_shape(shape, sharding))
    return whole / part if part else 1.0
