"""In which order the elements of a value are in memory.

XLA chooses, and lets what reads a value have its way where it can. A contraction on a
GPU is written in row-major order whatever its readers would like better, unless they
are fused with it; what reads it in another order brings it there first.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import NamedSharding

from .program import Program


def in_order(array: Any, sharding: NamedSharding | None) -> Any:
    """An array of a traced step, in row-major order in memory.

    **Arguments:**

    - `array`: what XLA may have in another order.
    - `sharding`: how it is divided, if it is.
    """

    def settle(array: Any) -> Any:
        return with_layout_constraint(array, Layout(tuple(range(array.ndim))))

    if sharding is None:
        return settle(array)
    # XLA does not divide it: each device settles what it has.
    spec = sharding.spec
    options = {"mesh": sharding.mesh, "in_specs": spec, "out_specs": spec}
    return jax.shard_map(settle, check_vma=False, **options)(array)


def is_made_in_order(program: Program, value: int) -> bool:
    """Whether XLA makes a value in row-major order, whatever reads it."""
    producer = program.values[value].producer
    if producer is None or program.values[value].aval.ndim < 3:
        return False
    return program.equations[producer].eqn.primitive.name == "dot_general"
