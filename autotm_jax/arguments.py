"""Which arguments the options of `jax.jit` select, and committing those."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np


def selected(
    fun: Callable[..., Any],
    options: Mapping[str, Any],
    numbers: str,
    names: str,
    count: int,
) -> set[int | str]:
    """Positions and names that two options of `jax.jit` select.

    As in JAX, a parameter selected by position is also selected by name and the other
    way round, where the signature tells.

    **Arguments:**

    - `fun`: the function that is jitted.
    - `options`: what was given to `jax.jit`.
    - `numbers`, `names`: two of them, as `"donate_argnums"` and `"donate_argnames"`.
    - `count`: how many arguments are given by position.

    **Returns:**

    Positions and names.
    """

    def said(key: str) -> tuple[Any, ...]:
        value = options.get(key)
        if value is None:
            return ()
        return (value,) if isinstance(value, (int, str)) else tuple(value)

    out: set[int | str] = {n % count for n in said(numbers) if count}
    out |= set(said(names))
    try:
        parameters = list(inspect.signature(fun).parameters)
    except (TypeError, ValueError):  # a callable that has no signature
        return out
    for position, name in enumerate(parameters):
        if position in out or name in out:
            out |= {position, name}
    return out


def committed(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Collection[int | str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments, some of them with their arrays committed to where they are.

    **Arguments:**

    - `args`, `kwargs`: of a call.
    - `chosen`: positions and names.

    **Returns:**

    The arguments.
    """

    def commit(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            leaf = jax.device_put(leaf)
        if isinstance(leaf, jax.Array) and not leaf.committed:
            return jax.device_put(leaf, leaf.sharding)
        return leaf

    def now(key: int | str, argument: Any) -> Any:
        return jax.tree.map(commit, argument) if key in chosen else argument

    given = tuple(now(n, argument) for n, argument in enumerate(args))
    return given, {name: now(name, argument) for name, argument in kwargs.items()}
