"""What the user has said of where arguments and results are.

`jax.jit` takes `in_shardings` and `out_shardings` in one memory for all calls, but a
plan may have a part of the state in host memory. Such a step is jitted without them,
and what they say is done here: the arguments are put there before each call, the
results are held there inside the step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from . import compat
from .residence import HOST, abstract_at


OPTIONS = ("in_shardings", "out_shardings")


class GivenShardings:
    """What the options of `jax.jit` say of where arguments and results are.

    **Arguments:**

    - `options`: what was given to `jax.jit`.
    """

    def __init__(self, options: Mapping[str, Any]):
        given, self._out = (options.get(name) for name in OPTIONS)
        self._in = tuple(given) if isinstance(given, list) else given
        self._known: dict[Any, list[Sharding | None]] = {}

    def __bool__(self) -> bool:
        return self._in is not None or self._out is not None

    @property
    def are_places(self) -> bool:
        """Whether they say only how arrays are divided.

        Layouts, and memories other than that of the device, are up to `jax.jit`.
        """
        return all(map(_is_place, jax.tree.leaves((self._in, self._out))))

    def hold(self, args: Sequence[Any]) -> bool:
        """Whether arrays are where they are said to be, in whatever memory.

        **Arguments:**

        - `args`: all that are arrays, of those given by position.

        **Returns:**

        True if nothing is left to do for `arguments`.
        """
        leaves, structure = jax.tree.flatten(args)
        wanted = self._wanted(structure)
        return all(map(_is_there, leaves, wanted))

    def arguments(self, args: Sequence[Any], on_host: Collection[int] = ()) -> Any:
        """The arguments where they are said to be.

        **Arguments:**

        - `args`: all that are arrays, of those given by position.
        - `on_host`: the numbers of those leaves whose place is in host memory.

        **Returns:**

        The arguments, abstract ones too; what is there already in the memory it is in.

        **Raises:**

        - `ValueError`: as `jax.jit` does, for what its owner has put elsewhere.
        """
        leaves, structure = jax.tree.flatten(args)
        wanted = self._wanted(structure)
        for number, (leaf, place) in enumerate(zip(leaves, wanted, strict=True)):
            if not _is_there(leaf, place):
                assert place is not None
                leaves[number] = _put(leaf, place, number in on_host)
        return jax.tree.unflatten(structure, leaves)

    def described(self, args: Sequence[Any]) -> Any:
        """Abstract values for arguments, as if they were where they are said to be.

        **Arguments:**

        - `args`: all that are arrays, of those given by position, or tracers of them.

        **Returns:**

        The arguments; those of which nothing is said as they are.
        """
        leaves, structure = jax.tree.flatten(args)
        wanted = self._wanted(structure)
        is_traced = not compat.at_top_level()  # what came to be traced was there
        for number, (leaf, place) in enumerate(zip(leaves, wanted, strict=True)):
            if place is None:
                continue
            if is_traced or _is_there(leaf, place) or not _is_committed(leaf):
                leaves[number] = abstract_at(leaf, place)
        return jax.tree.unflatten(structure, leaves)

    def _wanted(self, structure: Any) -> list[Sharding | None]:
        key = structure, _mesh()
        if key not in self._known:
            like = jax.tree.unflatten(structure, range(structure.num_leaves))
            self._known[key] = _each(self._in, like)
        return self._known[key]

    def held(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose results are held where they are said to be."""
        if self._out is None:
            return fun

        @functools.wraps(fun)
        def with_places(*args: Any, **kwargs: Any) -> Any:
            results = fun(*args, **kwargs)
            leaves, structure = jax.tree.flatten(results)
            wanted = _each(self._out, results)
            held = [
                x if place is None else jax.lax.with_sharding_constraint(x, place)
                for x, place in zip(leaves, wanted, strict=True)
            ]
            return jax.tree.unflatten(structure, held)

        return with_places


def _is_place(leaf: Any) -> bool:
    if isinstance(leaf, PartitionSpec):
        return True
    return isinstance(leaf, Sharding) and "host" not in (leaf.memory_kind or "")


def _each(prefix: Any, tree: Any) -> list[Sharding | None]:
    """For each leaf of a pytree what a prefix of it says.

    Nothing if it is none, or names axes of no mesh: JAX says so better.
    """
    out: list[Any] = []

    def said(place: Any, part: Any) -> None:
        out.extend([_resolved(place)] * len(jax.tree.leaves(part)))

    try:
        jax.tree.map(said, prefix, tree, is_leaf=_is_none)
    except ValueError:
        return [None] * len(jax.tree.leaves(tree))
    return out


def _is_none(node: Any) -> bool:
    return node is None


def _resolved(place: Any) -> Sharding | None:
    if isinstance(place, PartitionSpec):
        return NamedSharding(_mesh(), place)
    return place


def _mesh() -> Any:
    # That of `jax.set_mesh`; under a trace JAX tells no more of it than its axes.
    is_traced = not compat.at_top_level()
    current = jax.sharding.get_abstract_mesh if is_traced else jax.sharding.get_mesh
    return current()


def _is_committed(leaf: Any) -> bool:
    has_place = getattr(leaf, "sharding", None) is not None
    return has_place and getattr(leaf, "committed", True)


def _is_there(leaf: Any, place: Sharding | None) -> bool:
    if place is None:
        return True
    if not _is_committed(leaf):
        return False
    if leaf.sharding == place:
        return True
    is_same = leaf.sharding.device_set == place.device_set
    there = place.with_memory_kind(leaf.sharding.memory_kind) if is_same else place
    return leaf.sharding.is_equivalent_to(there, leaf.ndim)


def _put(leaf: Any, place: Sharding, is_hosted: bool) -> Any:
    if _is_committed(leaf):
        raise ValueError(
            f"An argument of shape {tuple(leaf.shape)} is at {leaf.sharding}, and "
            f"in_shardings says {place}. Bring it there with jax.device_put, or leave "
            "in_shardings out."
        )
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return abstract_at(leaf, place)
    return jax.device_put(leaf, place.with_memory_kind(HOST) if is_hosted else place)
