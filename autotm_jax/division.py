"""How XLA divides the values of a step on a mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.core import Tracer

from .compile import WITHOUT_TRITON, compile_not_to_run
from .trace import Flat, Shardings, large_values, shardings_of, with_all_values


# What says where results go, or whether arguments are overwritten, says nothing here.
_DROPPED = ("donate_argnums", "donate_argnames", "out_shardings", "keep_unused")


class Division:
    """How XLA divides the values of one step: asked once for each way to write it out.

    **Arguments:**

    - `fun`, `options`: the step, and what was given to `jax.jit` for it.
    - `args`, `kwargs`: of a call.
    - `to_run`: whether the devices are here.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        options: Mapping[str, Any],
        args: Any,
        kwargs: Any,
        to_run: bool,
    ):
        self._fun, self._options = fun, options
        self._args, self._kwargs = jax.tree.map(_abstract, (args, kwargs))
        self._to_run = to_run
        self._known: dict[tuple[int, int], Shardings] = {}

    def __call__(self, flat: Flat) -> Shardings:
        """By value of the step, its sharding; what is small is left out."""
        # Of one step, ways to write it out differ in how many loops are whole.
        key = len(flat.loops), len(flat.avals)
        if key not in self._known:
            self._known[key] = self._asked(flat)
        return self._known[key]

    def _asked(self, flat: Flat) -> Shardings:
        values = large_values(flat)
        run = with_all_values(flat, values)

        @functools.wraps(self._fun)
        def with_values(*args: Any, **kwargs: Any) -> Any:
            leaves = jax.tree.leaves((args, kwargs))
            return run(*(leaf for leaf in leaves if isinstance(leaf, Tracer)))

        options = {k: v for k, v in self._options.items() if k not in _DROPPED}
        jitted = jax.jit(with_values, keep_unused=True, **options)
        lowered = jitted.lower(*self._args, **self._kwargs)
        if self._to_run:
            compiled = lowered.compile()
        else:
            # Who writes matmuls says nothing here, and Triton cannot write some.
            compiled = compile_not_to_run(lowered, WITHOUT_TRITON)
        _, found = compiled.output_shardings
        return shardings_of(flat, values, found)


def _abstract(leaf: Any) -> Any:
    # So that no array is kept alive.
    if not isinstance(leaf, jax.Array):
        return leaf
    sharding = leaf.sharding if leaf.committed else None
    return jax.ShapeDtypeStruct(
        leaf.shape,
        leaf.dtype,
        sharding=sharding,
        weak_type=getattr(leaf, "weak_type", False),
    )
