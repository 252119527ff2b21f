"""Meshes of the CPU's devices, and what is put on them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def mesh(kind: AxisType = AxisType.Auto, **axes: int) -> Mesh:
    """A mesh of the CPU's devices with these axes."""
    devices = np.array(jax.devices()[: int(np.prod(list(axes.values())))])
    shape = tuple(axes.values())
    return Mesh(devices.reshape(shape), tuple(axes), axis_types=(kind,) * len(axes))


def spread(tree: Any, over: Mesh, *axes: str) -> Any:
    """Arrays with their largest dimension divided by some axes of a mesh.

    That of the layers, the first of three, is not; what does not divide is replicated.
    Abstract values stay abstract.
    """
    ways = int(np.prod([over.shape[name] for name in axes]))

    def put(leaf: Any) -> Any:
        first = 1 if leaf.ndim == 3 else 0
        fit = [d for d in range(first, leaf.ndim) if leaf.shape[d] % ways == 0]
        spec: list[Any] = [None] * leaf.ndim
        if fit and axes:
            spec[max(fit, key=lambda d: leaf.shape[d])] = axes
        sharding = NamedSharding(over, PartitionSpec(*spec))
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, tree)


def by_rows(tree: Any, over: Mesh, axis: str) -> Any:
    """Arrays with their first dimension divided by an axis of a mesh."""

    def put(leaf: Any) -> Any:
        sharding = NamedSharding(over, PartitionSpec(axis))
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, tree)
