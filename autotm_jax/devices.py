"""The devices that a step runs on: one, or those of a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from . import compat


def is_on_mesh(args: Any, kwargs: Any, options: Mapping[str, Any]) -> bool:
    """Whether a step is told to run on several devices.

    **Arguments:**

    - `args`, `kwargs`: of a call.
    - `options`: what was given to `jax.jit`.
    """
    is_set = jax.sharding.get_abstract_mesh().size > 1
    return is_set or len(devices_of(args, kwargs, options)) > 1


def is_mapped(jaxpr: Any) -> bool:
    """Whether there is a `shard_map` over several devices in a jaxpr."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "shard_map" and eqn.params["mesh"].size > 1:
            return True
        if any(map(is_mapped, jaxprs_in_params(eqn.params))):
            return True
    return False


def devices_of(args: Any, kwargs: Any, options: Mapping[str, Any]) -> set[Any]:
    """The devices that a step is told to run on; none if that is left to JAX.

    **Arguments:** those of `is_on_mesh`.
    """
    given = [options.get("in_shardings"), options.get("out_shardings")]
    placed = [getattr(x, "sharding", None) for x in jax.tree.leaves((args, kwargs))]
    shardings = [*jax.tree.leaves(given), *placed]
    found = {d for s in shardings for d in getattr(s, "device_set", ())}
    current = jax.sharding.get_mesh()  # that of `jax.set_mesh`
    return found if current.empty else found.union(current.devices.flat)


def replicated(
    args: Any, kwargs: Any, options: Mapping[str, Any]
) -> NamedSharding | None:
    """Where an array is that a step on a mesh has whole on every device.

    **Arguments:** those of `is_on_mesh`.

    **Returns:**

    A sharding; `None` for a step that is not on a mesh.
    """
    placed = [getattr(x, "sharding", None) for x in jax.tree.leaves((args, kwargs))]
    given = [options.get("in_shardings"), options.get("out_shardings")]
    meshes = [getattr(s, "mesh", None) for s in [*placed, *jax.tree.leaves(given)]]
    if compat.at_top_level():
        meshes.append(jax.sharding.get_mesh())
    for mesh in meshes:
        if isinstance(mesh, Mesh) and mesh.size > 1:
            return NamedSharding(mesh, PartitionSpec())
    return None
