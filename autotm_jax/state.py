"""The state of a step: which of its results is which argument of the next call.

A training step takes a state and returns a new one. Where a donated argument, or a part
of it, comes back as a pytree of the same structure, shapes and dtypes, its leaves are
taken for what is carried from call to call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax


def carried_leaves(args_info: Any, out_info: Any) -> dict[int, int]:
    """Pairs the donated leaves of a step's arguments with its results.

    **Arguments:**

    - `args_info`, `out_info`: of a `jax.stages.Traced`.

    **Returns:**

    For the number of a flat argument, that of the flat result that takes its place.
    """
    results = list(_parts(out_info))
    claimed: set[int] = set()
    out: dict[int, int] = {}

    def claim(part: Any, first: int) -> bool:
        kinds, structure = _described(part)
        for result, begin in results:
            span = range(begin, begin + len(kinds))
            if claimed.isdisjoint(span) and _described(result) == (kinds, structure):
                claimed.update(span)
                out.update(zip(range(first, first + len(kinds)), span, strict=True))
                return True
        return False

    # The largest parts first: arguments as a whole, then what they are made of.
    level = list(_children(args_info, 0))
    while level:
        following: list[tuple[Any, int]] = []
        for part, first in level:
            leaves = jax.tree.leaves(part, is_leaf=_is_leaf)
            if not leaves or (_is_leaf(part) and not _is_donated(part)):
                continue
            if not (all(map(_is_donated, leaves)) and claim(part, first)):
                following += _children(part, first)
        level = following
    return out


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _is_donated(leaf: Any) -> bool:
    return bool(getattr(leaf, "donated", False))


def _described(part: Any) -> tuple[list[tuple[Any, Any]], Any]:
    leaves, structure = jax.tree.flatten(part, is_leaf=_is_leaf)
    return [(tuple(leaf.shape), leaf.dtype) for leaf in leaves], structure


def _children(node: Any, first: int) -> Iterator[tuple[Any, int]]:
    """The parts of a pytree one level down, with the numbers of their first leaves."""
    if _is_leaf(node):
        return
    for child in jax.tree.leaves(node, is_leaf=lambda x: x is not node):
        yield child, first
        first += len(jax.tree.leaves(child, is_leaf=_is_leaf))


def _parts(node: Any) -> Iterator[tuple[Any, int]]:
    """A pytree and all of its parts, the larger ones first."""
    level = [(node, 0)]
    while level:
        yield from level
        level = [child for part in level for child in _children(*part)]
