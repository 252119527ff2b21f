"""Where the state of a step is when it is called, and where the plan wants it.

Between calls a leaf of the state is on the device or in `pinned_host` memory, as the
plan says. JAX types arrays by their memory, so a step is traced, as the user wrote it,
with all of its state on the device, and emitted with it where it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Sharding

from . import compat


HOST = "pinned_host"


def is_in_host_memory(leaf: Any) -> bool:
    """Whether an array, or a tracer of one, is in host memory."""
    if isinstance(leaf, Tracer):
        return compat.is_on_host(leaf.aval)
    is_array = isinstance(leaf, jax.Array)
    return is_array and leaf.sharding.memory_kind == HOST


def as_on_device(leaf: Any) -> Any:
    """An abstract value for an array in host memory, as if it were on the device.

    Everything else is returned as it is.
    """
    if not is_in_host_memory(leaf):
        return leaf
    aval = jax.typeof(leaf)
    if isinstance(leaf, Tracer):
        # What of a sharding is part of its type.
        sharding = aval.sharding if aval.sharding.mesh.axis_names else None
    else:
        is_spread = len(leaf.sharding.device_set) > 1
        sharding = _of_device(leaf.sharding) if is_spread else None
    return abstract_at(leaf, sharding)


def abstract_at(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    """An abstract value of an array, as if it were somewhere else."""
    aval = jax.typeof(leaf)
    is_weak = aval.weak_type
    return jax.ShapeDtypeStruct(
        aval.shape, aval.dtype, sharding=sharding, weak_type=is_weak
    )


def _of_device(sharding: Any) -> Any:
    # The same in the memory that JAX uses unless told otherwise.
    (kind,) = {device.default_memory().kind for device in sharding.device_set}
    return sharding.with_memory_kind(kind)


def on_host(leaf: Any, place: Sharding | None = None) -> Any:
    """A leaf in `pinned_host` memory. Abstract ones become zeros there.

    `place` is where a leaf is divided that is not committed; `None`: where it is.
    """
    if is_in_host_memory(leaf):
        return leaf
    sharding = getattr(leaf, "sharding", None)
    if isinstance(leaf, jax.ShapeDtypeStruct):
        leaf = np.zeros(leaf.shape, leaf.dtype)
    elif not getattr(leaf, "committed", True):
        sharding = place or sharding
    sharding = sharding or place
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.device_put(leaf, sharding.with_memory_kind(HOST))


def _on_device(leaf: Any) -> Any:
    if not is_in_host_memory(leaf):
        return leaf
    return jax.device_put(leaf, _of_device(leaf.sharding))


def on_device(tree: Any) -> Any:
    """Brings a state back to the memory of its devices.

    For functions that are not planned: they take no arrays in host memory.

    !!! Example

        ```python
        state, loss = train_step(state, batch)
        accuracy = evaluate(autotm.on_device(state), batch)
        ```

    **Arguments:**

    - `tree`: a pytree of arrays.

    **Returns:**

    The pytree, with copies of those arrays that are in host memory.
    """
    return jax.tree.map(_on_device, tree)


def settled(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    static: Collection[int | str],
    state: Collection[int],
    on_the_host: Collection[int],
    place: Sharding | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a step where a plan wants them.

    **Arguments:**

    - `args`, `kwargs`: of the step.
    - `static`: positions and names of those that are no arrays.
    - `state`: the numbers of the flat ones that are carried from call to call.
    - `on_the_host`: the numbers of those whose place is on the host.
    - `place`: how what is not committed is divided there; `None`: not at all.

    **Returns:**

    As given; leaves that are elsewhere are copied.
    """
    given = (
        tuple(None if n in static else a for n, a in enumerate(args)),
        {k: None if k in static else v for k, v in kwargs.items()},
    )
    leaves, structure = jax.tree.flatten(given)
    for number in state:
        leaf = leaves[number]
        is_hosted = number in on_the_host
        leaves[number] = on_host(leaf, place) if is_hosted else _on_device(leaf)
    placed, named = jax.tree.unflatten(structure, leaves)
    return (
        tuple(args[n] if n in static else a for n, a in enumerate(placed)),
        {k: kwargs[k] if k in static else v for k, v in named.items()},
    )


def let_go(given: Any, placed: Any) -> int:
    """Deletes what has been copied from one memory to the other.

    As all of that is donated, nobody may use it any more.

    **Arguments:**

    - `given`, `placed`: the arguments of a step as they came and where they are wanted.

    **Returns:**

    How many leaves that are.
    """
    moved, kept = [], set[int]()
    pairs = zip(jax.tree.leaves(given), jax.tree.leaves(placed), strict=True)
    for before, after in pairs:
        if is_in_host_memory(before) != is_in_host_memory(after):
            moved.append(before)
        else:
            kept.add(id(before))
    for leaf in moved:
        # One array may be in a state twice, and one of them may stay.
        is_done = isinstance(leaf, jax.Array) and id(leaf) not in kept
        if is_done and not leaf.is_deleted():
            leaf.delete()
    return len(moved)


def is_settled(
    leaves: Iterable[Any], state: Collection[int], on_the_host: Collection[int]
) -> bool:
    """Whether all that is carried is where a plan wants it."""
    return all(
        is_in_host_memory(leaf) == (number in on_the_host)
        for number, leaf in enumerate(leaves)
        if number in state
    )
