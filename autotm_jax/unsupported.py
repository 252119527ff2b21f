"""What keeps a step from being planned, as far as that is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from . import compat
from .devices import is_mapped, is_on_mesh
from .request import Request
from .trace import flatten


def why_unsupported(
    traced: Any, request: Request, args: Any, kwargs: Any, options: Mapping[str, Any]
) -> str:
    """Why a step is not planned, as the end of a sentence.

    **Arguments:**

    - `traced`: the step, a `jax.stages.Traced`.
    - `request`: what the user asked for.
    - `args`, `kwargs`: of the call.
    - `options`: what was given to `jax.jit`.

    **Returns:**

    Text; empty if it may be planned.
    """
    backend = jax.default_backend()
    if request.target.is_present and backend not in ("cpu", "gpu", "cuda"):
        return f"the backend {backend!r} schedules by other rules than a GPU's"
    if not jax.tree.leaves(traced.out_info):
        return "it returns no arrays"
    if is_mapped(traced.jaxpr.jaxpr) and not is_on_mesh(args, kwargs, options):
        return (
            "it has a jax.shard_map over several devices, and its arguments are not on "
            "them yet. Put its state there before the first call: "
            "jax.device_put(state, NamedSharding(mesh, spec))"
        )
    try:
        flat = flatten(traced.jaxpr, loops=True)
    except Exception as error:  # noqa: BLE001 - the step has to run whatever fails
        return f"{type(error).__name__}: {error}"
    if any(map(compat.is_reference, flat.avals)):
        return "it reads and writes mutable arrays (jax.Ref) in an order of their own"
    if [e.eqn.primitive.name for e in flat.equations] == ["shard_map"]:
        return (
            "all of it is one jax.shard_map that stays whole. Let it be over all axes "
            "of its mesh, without arrays in host memory or unreduced sums in it"
        )
    return ""
