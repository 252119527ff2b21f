"""Bytes that the devices of a mesh send one another in an equation, and how long.

Modelled: an operand that is gathered costs what a device has not had of it; a
contraction of divided dimensions leaves partial sums on each device, which are added up
and divided again (reduce-scatter), or added up for all (all-reduce, which is twice
that). In a manual region it is the collectives that the step has. Ring algorithms, as
NCCL's, send as much.
"""

from __future__ import annotations

import math
from typing import Any

from ..trace import RESHARDING, Equation, Program, axes_of, nbytes_of, summed_axes


_SUMS = {"pmax", "pmin", "psum", "psum_invariant"}
_GATHERS = {"all_gather", "all_gather_invariant", "reduce_scatter"}


def exchanged_bytes(program: Program, equation: Equation) -> float:
    """Bytes that each device receives from others.

    **Arguments:**

    - `program`, `equation`: what runs. Outside of a mesh, and of primitives without a
        model, it is nothing.

    **Returns:**

    Bytes.
    """
    if equation.manual is not None:
        sizes = dict(equation.manual.region.mesh.shape)
        return _in_collective(equation.eqn, sizes)
    if program.everywhere is None:
        return 0.0
    if equation.eqn.primitive.name in RESHARDING:
        before = sum(program.values[v].nbytes for v in equation.operands)
        after = sum(program.values[v].nbytes for v in equation.outputs)
        return float(max(0, after - before))
    return _summed_up(program, equation)


def _in_collective(eqn: Any, sizes: dict[str, int]) -> float:
    name, params = eqn.primitive.name, eqn.params
    read = sum(nbytes_of(v.aval) for v in eqn.invars)
    if name in _GATHERS:
        made = sum(nbytes_of(v.aval) for v in eqn.outvars)
        return float(abs(made - read))
    if name == "ppermute":
        return float(read)
    axes = params.get("axes", params.get("axis_name", ()))
    axes = axes if isinstance(axes, tuple) else (axes,)
    count = math.prod(sizes.get(n, 1) for n in axes)  # a dimension has a number
    others = (count - 1.0) / count
    if name in _SUMS:
        return 2.0 * read * others
    return read * others if name == "all_to_all" else 0.0


def _summed_up(program: Program, equation: Equation) -> float:
    operands = [program.values[v].sharding for v in equation.operands]
    summed = summed_axes(equation.eqn, operands)
    out = program.values[equation.outputs[0]]
    if not summed or out.sharding is None:
        return 0.0
    sizes = dict(out.sharding.mesh.shape)
    count = math.prod(sizes[name] for name in summed)
    divided = {n for each in axes_of(out.sharding, out.aval.ndim) for n in each}
    if summed <= divided:
        return out.nbytes * (count - 1.0)
    return 2.0 * out.nbytes * (count - 1.0) / count
