"""In which order the elements of a value are in memory.

XLA chooses, and lets what reads a value have its way where it can. A contraction of
batches is written in row-major order on a GPU whatever its readers would like better,
unless they are fused with it; what reads it in another order brings it there first. A
convolution writes images with their channels last, and volumes and what is in double
precision with its channels first, however their dimensions are numbered. Fused work
after that writes in the order in which it reads. A single matrix is written either way,
and turned in the segment that makes it if it has to be.

Copies between the memories are in row-major order. They are views in which the order of
a value is that, so that nothing has to be turned on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import NamedSharding

from .primitives import Kind


if TYPE_CHECKING:
    from .program import Equation, Value


MajorToMinor = tuple[int, ...]
"""The dimensions of an array from major to minor, as its elements are in memory."""

Rule = Callable[[Any, list[MajorToMinor | None]], MajorToMinor | None]

_rules: dict[str, Rule] = {}


def in_order(
    array: Any, sharding: NamedSharding | None, order: MajorToMinor | None = None
) -> Any:
    """An array of a traced step, its elements in a certain order in memory.

    **Arguments:**

    - `array`: what XLA may have in another order.
    - `sharding`: how it is divided, if it is.
    - `order`: its dimensions from major to minor; row-major if there is none.
    """
    order = tuple(range(array.ndim)) if order is None else order

    def settle(array: Any) -> Any:
        return with_layout_constraint(array, Layout(order))

    if sharding is None:
        return settle(array)
    # XLA does not divide it: each device settles what it has.
    spec = sharding.spec
    options = {"mesh": sharding.mesh, "in_specs": spec, "out_specs": spec}
    return jax.shard_map(settle, check_vma=False, **options)(array)


def as_in_memory(array: Any, order: MajorToMinor | None) -> Any:
    """A view of an array whose row-major order is its own order in memory.

    **Arguments:**

    - `array`: of a traced step.
    - `order`: its dimensions from major to minor; row-major if there is none.
    """
    return array if order is None else jnp.transpose(array, order)


def from_memory(array: Any, order: MajorToMinor | None) -> Any:
    """An array, given what [`as_in_memory`][] makes of it."""
    if order is None:
        return array
    return jnp.transpose(array, [order.index(d) for d in range(len(order))])


def orders(
    values: Sequence[Value], equations: Sequence[Equation], settled: frozenset[int]
) -> tuple[MajorToMinor | None, ...]:
    """The order in which XLA makes each value, whatever reads it, as far as is known.

    **Arguments:**

    - `values`, `equations`: of a program.
    - `settled`: arguments and results, which are in row-major order anyway. Nothing is
        known of what is made of one of them, unless that is in the same order.

    **Returns:**

    By value, its `MajorToMinor`, or `None`.
    """
    known: list[MajorToMinor | None] = [None] * len(values)
    for equation in equations:
        if len(equation.outputs) != 1 or equation.outputs[0] in settled:
            continue
        (output,) = equation.outputs
        made, ndim = _made(equation, known), values[output].aval.ndim
        is_turned = made is not None and made != tuple(range(ndim))
        # A kernel has its operands brought into the order that it takes.
        takes_any = equation.kind is Kind.KERNEL
        if takes_any or not (is_turned and settled.intersection(equation.operands)):
            known[output] = made
    return tuple(known)


def _made(
    equation: Equation, known: Sequence[MajorToMinor | None]
) -> MajorToMinor | None:
    eqn = equation.eqn
    operands = [known[i] if isinstance(i, int) else None for i in equation.inputs]
    rule = _rules.get(eqn.primitive.name)
    if rule is not None:
        return rule(eqn, operands)
    if equation.kind is not Kind.FUSED:
        return None
    shape = eqn.outvars[0].aval.shape
    # What is smaller is broadcast, in any order that it is wanted in.
    alike = [
        order
        for order, operand in zip(operands, eqn.invars, strict=True)
        if operand.aval.shape == shape
    ]
    return _common(alike)


def _common(orders: Sequence[MajorToMinor | None]) -> MajorToMinor | None:
    # One that is known; what is not known is made as its neighbour is.
    found = {order for order in orders if order is not None}
    return found.pop() if len(found) == 1 else None


def _makes(*names: str) -> Callable[[Rule], Rule]:
    # A rule for primitives by these names: from the orders of the operands, as far as
    # they are known, that of the result. Without one, fused work has the order of its
    # operands of the same shape, and of other work none is known.
    def register(rule: Rule) -> Rule:
        _rules.update(dict.fromkeys(names, rule))
        return rule

    return register


@_makes("dot_general")
def _contracted(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    _, (batch, _) = eqn.params["dimension_numbers"]
    ndim = eqn.outvars[0].aval.ndim
    return tuple(range(ndim)) if batch else None


@_makes("conv_general_dilated")
def _convolved(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    kernel, result = eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
    _, (_, _, *window), (batch, feature, *space) = eqn.params["dimension_numbers"]
    if all(kernel[k] > result[d] for k, d in zip(window, space, strict=True)):
        return None  # most likely the gradient of a kernel
    by_channels = len(space) > 2 or eqn.outvars[0].aval.dtype == jnp.float64
    return (batch, feature, *space) if by_channels else (batch, *space, feature)


@_makes("fft")
def _transformed(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    return tuple(range(eqn.outvars[0].aval.ndim))


@_makes("transpose")
def _transposed(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    (order,) = operands
    if order is None:
        return None
    permutation = eqn.params["permutation"]
    return tuple(permutation.index(d) for d in order)


@_makes("concatenate")
def _joined(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    return _common(operands)


@_makes("slice")
def _cut(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    return operands[0]


@_makes("broadcast_in_dim")
def _repeated(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    return None


@_makes("reshape")
def _reshaped(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    is_turned_first = eqn.params["dimensions"] is not None
    return None if is_turned_first else _viewed(eqn, operands)


@_makes("squeeze", "expand_dims")
def _viewed(eqn: Any, operands: list[MajorToMinor | None]) -> MajorToMinor | None:
    source, result = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    order = operands[0]
    if order is None or 0 in source:
        return None
    return view_of(source, order, result)


def view_of(
    source: Sequence[int], order: MajorToMinor, result: Sequence[int]
) -> MajorToMinor | None:
    """The order of an array in another shape, if that is a view of it.

    Dimensions that are joined are neighbours in the shape, and have to be in memory.

    **Arguments:**

    - `source`, `order`: its shape, and the order of its elements in memory.
    - `result`: the other shape.

    **Returns:**

    An order, or `None` if the elements have to be copied.
    """
    wide = [d for d in order if source[d] > 1]
    becomes: dict[int, list[int]] = {}
    for joined, parts in _groups(source, result):
        first = wide.index(joined[0])
        if wide[first : first + len(joined)] != joined:
            return None
        becomes[joined[0]] = parts
    found = [part for d in wide for part in becomes.get(d, ())]
    if found == sorted(found):
        return tuple(range(len(result)))
    return (*(d for d in range(len(result)) if d not in found), *found)


def _groups(
    source: Sequence[int], result: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Dimensions of an array, and those that they are together after a reshape.

    Those of one element are left out.
    """
    left, right = ([d for d, n in enumerate(s) if n > 1] for s in (source, result))
    while left:
        joined, parts = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(source[d] for d in joined)) != (
            b := math.prod(result[d] for d in parts)
        ):
            if a < b:
                joined.append(left.pop(0))
            else:
                parts.append(right.pop(0))
        yield joined, parts
