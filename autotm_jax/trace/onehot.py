"""Writing a scatter of one element per row as the select that it is.

The gradient of `take_along_axis`, and so of every cross-entropy with integer labels,
scatters one number into each row of a buffer of zeros. XLA fills and writes that
buffer, as large as the logits, before anything may read it. Compared with the position
along the row instead, the same values are element-wise work: fused into whatever
reads them, they take no memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
from jax.sharding import NamedSharding

from .. import compat
from .flat import Flat, FlatEquation, live
from .regions import Manual


# By whether the update is added to what is there, or takes its place.
_ADDS = {"scatter": False, "scatter-add": True, "scatter_add": True}

# What makes an array of one number. In a `shard_map`, JAX says between the two that
# devices may differ.
_FILLS = {"broadcast_in_dim", "pvary"}


def select_one_hot(flat: Flat) -> Flat:
    """Rewrites scatters of one element per row into a constant.

    **Arguments:**

    - `flat`: a flattened step.

    **Returns:**

    A `Flat` with the same results, in which such scatters are selects.
    """
    avals, shardings = list(flat.avals), dict(flat.shardings)
    equations: list[FlatEquation] = []
    fills: dict[int, Any] = {}  # the scalar that fills a value
    changed = False
    for equation in flat.equations:
        name = equation.eqn.primitive.name
        (first, *_) = equation.inputs or (None,)
        if name in _FILLS and isinstance(first, jex_core.Literal):
            fills[equation.outputs[0]] = first.val
        elif name in _FILLS and first in fills:
            fills[equation.outputs[0]] = fills[first]
        # A context (compute type, XLA metadata) asks for this very operation.
        if (
            name in _ADDS
            and isinstance(first, int)
            and first in fills
            and not compat.has_context(equation.eqn)
            and _axis(equation.eqn) is not None
        ):
            new, (output,) = len(avals), equation.outputs
            if equation.manual is not None:
                equations += _rewritten_in_region(
                    equation, equation.manual, fills[first], avals, shardings
                )
            else:
                equations += _rewritten(equation, fills[first], avals)
                if output in shardings:
                    shape, made = avals[output].shape, range(new, len(avals))
                    alike = (v for v in made if avals[v].shape == shape)
                    shardings.update(dict.fromkeys(alike, shardings[output]))
            changed = True
        else:
            equations.append(equation)
    if not changed:
        return flat
    return live(
        dataclasses.replace(
            flat,
            avals=tuple(avals),
            equations=tuple(equations),
            shardings=shardings,
        )
    )


def _axis(eqn: Any) -> int | None:
    # The axis along which exactly one element of each row is written, if there is one.
    numbers = eqn.params["dimension_numbers"]
    operand, indices, updates = (v.aval for v in eqn.invars)
    axes = tuple(numbers.scatter_dims_to_operand_dims)
    rows = tuple(numbers.operand_batching_dims)
    # A weak type would not survive, and `.at[].apply` scatters by a function.
    if operand.weak_type or not _overwrites_or_adds(eqn):
        return None
    if len(axes) != 1 or len(rows) != operand.ndim - 1 or indices.shape[-1] != 1:
        return None
    if not updates.shape:
        return None  # there is but one row
    number_of_rows = operand.size // max(1, operand.shape[axes[0]])
    return int(axes[0]) if updates.size == number_of_rows > 0 else None


def _overwrites_or_adds(eqn: Any) -> bool:
    if _ADDS[eqn.primitive.name]:
        return True
    update = eqn.params.get("update_jaxpr")
    return update is None or update.outvars == update.invars[1:]


def _rewritten(
    equation: FlatEquation, fill: Any, avals: list[Any]
) -> list[FlatEquation]:
    eqn = equation.eqn
    operand, indices, updates = (v.aval for v in eqn.invars)

    def select(at: jax.Array, update: jax.Array) -> jax.Array:
        return _select(eqn, operand, fill, at, update)

    closed = compat.jaxpr_of_function(select, indices, updates)
    return _written_out(equation, closed.jaxpr, avals)


def _rewritten_in_region(
    equation: FlatEquation,
    manual: Manual,
    fill: Any,
    avals: list[Any],
    shardings: dict[int, NamedSharding],
) -> list[FlatEquation]:
    eqn, region = equation.eqn, manual.region
    avals_read: list[Any] = [v.aval for v in eqn.invars]
    operand, *others = avals_read

    def select(at: jax.Array, update: jax.Array) -> jax.Array:
        return _select(eqn, operand, fill, at, update)

    takes, gives = manual.takes[1:], manual.gives[0]
    body = region.traced(select, others, takes, gives)
    specs = {v: s for v, s in zip(equation.inputs[1:], takes, strict=True)}
    out = []
    for line in _written_out(equation, body, avals):
        (made,) = line.outputs
        part: Any = line.eqn.outvars[0].aval
        is_like_it = part.shape == operand.shape and region.suits(gives, part)
        spec = specs[made] = gives if is_like_it else region.default(part)
        if made not in equation.outputs:
            avals[made] = region.whole(part, spec)
            shardings[made] = NamedSharding(region.mesh, spec)
        taken = tuple(specs[i] if isinstance(i, int) else None for i in line.inputs)
        inside = Manual(region, taken, (spec,))
        out.append(dataclasses.replace(line, manual=inside))
    return out


def _written_out(
    equation: FlatEquation, jaxpr: Any, avals: list[Any]
) -> list[FlatEquation]:
    """The equations of a jaxpr in place of one, of all inputs of that but the first."""
    env: dict[Any, Any] = dict(zip(jaxpr.invars, equation.inputs[1:], strict=True))
    (result,) = jaxpr.outvars
    env_of = env.__getitem__
    out = []
    for inner in jaxpr.eqns:
        (made,) = inner.outvars
        if made is result:
            env[made] = equation.outputs[0]
        else:
            avals.append(made.aval)
            env[made] = len(avals) - 1
        inputs = tuple(
            v if isinstance(v, jex_core.Literal) else env_of(v) for v in inner.invars
        )
        line = inner.replace(source_info=equation.eqn.source_info)
        out.append(FlatEquation(line, inputs, (env[made],), equation.loop))
    return out


def _select(
    eqn: Any, operand: Any, fill: Any, at: jax.Array, update: jax.Array
) -> jax.Array:
    numbers = eqn.params["dimension_numbers"]
    axis = _axis(eqn)
    assert axis is not None
    # Every dimension that does not count rows has size one.
    window = {int(d) for d in numbers.update_window_dims}
    at = _by_row(at, numbers, {at.ndim - 1})
    update = _by_row(update, numbers, window)
    size = operand.shape[axis]
    if jnp.iinfo(at.dtype).bits < 32:
        at = jax.lax.convert_element_type(at, jnp.int32)  # it has to count to `size`
    if eqn.params["mode"] == jax.lax.GatherScatterMode.CLIP:
        zero, last = jnp.zeros((), at.dtype), jnp.array(size - 1, at.dtype)
        at = jax.lax.clamp(zero, at, last)
    # In every other mode a position outside of the row matches nothing.
    filled = jnp.array(fill, operand.dtype)
    if _ADDS[eqn.primitive.name]:
        update = jax.lax.add(update, filled)
    others = tuple(d for d in range(operand.ndim) if d != axis)
    rows = jax.lax.broadcast_in_dim(at, operand.shape, others)
    chosen = jax.lax.eq(jax.lax.broadcasted_iota(at.dtype, operand.shape, axis), rows)
    return jax.lax.select(
        chosen,
        jax.lax.broadcast_in_dim(update, operand.shape, others),
        jax.lax.full_like(chosen, filled, operand.dtype),
    )


def _by_row(array: jax.Array, numbers: Any, dropped: set[int]) -> jax.Array:
    # Indices and updates count rows in the same order, between dimensions of their
    # own; the operand may count them in another.
    kept = [d for d in range(array.ndim) if d not in dropped]
    pairs = zip(
        numbers.operand_batching_dims,
        numbers.scatter_indices_batching_dims,
        strict=True,
    )
    order = [kept[place] for _, place in sorted(pairs)]
    spare = [d for d in range(array.ndim) if d not in order]
    array = jax.lax.transpose(array, (*order, *spare))
    return jax.lax.squeeze(array, tuple(range(len(order), array.ndim)))
