"""Operands that every device needs whole, as values of the program.

XLA gathers a sharded operand of a contraction where its result is divided in another
way: the weights of a layer whose state is spread over the mesh, say. Each kernel does
that for itself, and XLA finds out that two of them do the same only where no cut is
between them. So what is gathered is written down as an equation here, one for all of
the kernels that read it: it may stay on the device from one to the next, or be gathered
again, which costs what sending it costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from .. import compat
from .bytes import axes_of
from .flat import Flat, FlatEquation
from .primitives import RESHARDING, Kind, kind_of


def gather_operands(flat: Flat) -> Flat:
    """Writes out how operands of contractions are gathered.

    **Arguments:**

    - `flat`: a step on a mesh; any other one is returned as it is.

    **Returns:**

    A `Flat` with the same results.
    """
    if not flat.shardings:
        return flat
    avals, shardings = list(flat.avals), dict(flat.shardings)
    known: dict[tuple[int, Any, int | None], int] = {}
    equations: list[FlatEquation] = []
    for equation in flat.equations:
        inputs = list(equation.inputs)
        for place, sharding in _gathered(flat, equation).items():
            value = inputs[place]
            key = value, sharding, equation.loop
            if key not in known:
                known[key] = len(avals)
                avals.append(avals[value])
                shardings[known[key]] = sharding
                eqn = _gathering(avals[value], sharding)
                eqn = eqn.replace(source_info=equation.eqn.source_info)
                made = (known[key],)
                equations.append(FlatEquation(eqn, (value,), made, equation.loop))
            inputs[place] = known[key]
        equations.append(dataclasses.replace(equation, inputs=tuple(inputs)))
    return dataclasses.replace(
        flat, avals=tuple(avals), equations=tuple(equations), shardings=shardings
    )


def kinds_of(flat: Flat) -> list[Kind]:
    """What XLA does with the equations of a step, which may be on a mesh."""

    def sends(equation: FlatEquation) -> bool:
        if equation.eqn.primitive.name not in RESHARDING:
            return False
        known = {flat.shardings.get(v) for v in equation.operands + equation.outputs}
        return len(known) > 1 and None not in known

    return [Kind.MEMORY if sends(e) else kind_of(e.eqn) for e in flat.equations]


def _gathering(aval: Any, sharding: NamedSharding) -> Any:
    def gather(array: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(array, sharding)

    (eqn,) = compat.jaxpr_of_function(gather, aval).jaxpr.eqns
    return eqn


def _gathered(flat: Flat, equation: FlatEquation) -> dict[int, NamedSharding]:
    """By position, how an operand is needed that is gathered first."""
    if equation.eqn.primitive.name != "dot_general" or equation.manual is not None:
        return {}
    left, right = equation.inputs
    (out,) = equation.outputs
    if not all(isinstance(v, int) and v in flat.shardings for v in (left, right, out)):
        return {}
    if any(compat.is_explicitly_sharded(flat.avals[v]) for v in (left, right, out)):
        return {}  # JAX itself says there what is sent
    ndim = [flat.avals[v].ndim for v in (left, right, out)]
    axes = [
        axes_of(flat.shardings[v], n)
        for v, n in zip((left, right, out), ndim, strict=True)
    ]
    found: dict[int, NamedSharding] = {}
    for place, value in enumerate((left, right)):
        kept = _kept(equation.eqn, place, axes, ndim)
        if kept != axes[place]:
            mesh = flat.shardings[value].mesh
            found[place] = NamedSharding(mesh, PartitionSpec(*kept))
    return found


def _kept(
    eqn: Any,
    place: int,
    axes: Sequence[tuple[tuple[str, ...], ...]],
    ndim: Sequence[int],
) -> tuple[tuple[str, ...], ...]:
    """By dimension of an operand, the axes of the mesh that divide it where it is read.

    Those that divide the same dimension of the result, or a contracted dimension of
    both operands.
    """
    contracted, batch = eqn.params["dimension_numbers"]
    partner = dict(zip(contracted[place], contracted[1 - place], strict=True))
    result = _result_dimensions(place, contracted, batch, ndim)
    out = []
    for d, names in enumerate(axes[place]):
        other = axes[1 - place][partner[d]] if d in partner else axes[2][result[d]]
        out.append(tuple(n for n in names if n in other))
    return tuple(out)


def _result_dimensions(
    place: int, contracted: Any, batch: Any, ndim: Sequence[int]
) -> Mapping[int, int]:
    """By dimension of an operand, that of the result: batch, left, then right."""
    out = {d: n for n, d in enumerate(batch[place])}
    used = {*contracted[place], *batch[place]}
    first = len(batch[place])
    if place == 1:
        first += ndim[0] - len(contracted[0]) - len(batch[0])
    free = (d for d in range(ndim[place]) if d not in used)
    out.update({d: first + n for n, d in enumerate(free)})
    return out
