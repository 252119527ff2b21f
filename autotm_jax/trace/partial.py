"""Partial sums on each device, added up before the devices exchange them.

A contraction of divided dimensions leaves a part of each sum on every device. Where two
such results are added (the gradient of what two layers read), XLA adds the parts and
exchanges once, if no cut is between: so such contractions follow one another, in one
segment.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jax.sharding import NamedSharding

from .bytes import axes_of
from .flat import Flat, FlatEquation


_ADDS = frozenset({"add", "add_any"})


def partial_sums(flat: Flat) -> list[list[int]]:
    """Contractions whose results are added to each other and read by nobody else.

    **Arguments:**

    - `flat`: a step. Outside of a mesh there are none.

    **Returns:**

    Groups of two and more equations, each in program order.
    """
    if not flat.shardings:
        return []
    uses = Counter(v for e in flat.equations for v in e.operands)
    uses.update(v for v in flat.results if isinstance(v, int))
    for loop in flat.loops:
        handed = [a for c in loop.carries for a in (c.initial, c.after)]
        handed += [s.each for s in loop.stacks]
        uses.update(v for v in handed if isinstance(v, int))
    # By value, the contractions that it is the sum of.
    parts: dict[int, list[int]] = {}
    groups: dict[int, list[int]] = {}
    for index, equation in enumerate(flat.equations):
        if _summed_axes(flat, equation):
            parts[equation.outputs[0]] = [index]
        elif equation.eqn.primitive.name in _ADDS and len(equation.operands) == 2:
            left, right = equation.operands
            both = parts.get(left), parts.get(right)
            if left == right or uses[left] != 1 or uses[right] != 1 or None in both:
                continue
            members = sorted(i for part in both if part for i in part)
            alike = {(_summed_axes(flat, e), e.loop) for e in _at(flat, members)}
            if len(alike) == 1 and equation.loop == flat.equations[members[0]].loop:
                parts[equation.outputs[0]] = members
                groups.pop(left, None)
                groups.pop(right, None)
                groups[equation.outputs[0]] = members
    return list(groups.values())


def _at(flat: Flat, indices: list[int]) -> list[FlatEquation]:
    return [flat.equations[i] for i in indices]


def _summed_axes(flat: Flat, equation: FlatEquation) -> frozenset[str]:
    if equation.manual is not None:
        return frozenset()  # there, parts are added up where the step says so
    return summed_axes(equation.eqn, [flat.shardings.get(v) for v in equation.operands])


def summed_axes(eqn: Any, shardings: Sequence[NamedSharding | None]) -> frozenset[str]:
    """The axes of a mesh over which the results of an equation are partial sums.

    **Arguments:**

    - `eqn`: a JAX equation. Only contractions leave such sums.
    - `shardings`: of its operands.
    """
    if eqn.primitive.name != "dot_general" or len(shardings) != 2:
        return frozenset()
    contracted, _ = eqn.params["dimension_numbers"]
    found: list[set[str]] = []
    for sharding, var, dimensions in zip(
        shardings, eqn.invars, contracted, strict=True
    ):
        if sharding is None:
            return frozenset()
        axes = axes_of(sharding, var.aval.ndim)
        found.append({name for d in dimensions for name in axes[d]})
    return frozenset(found[0] & found[1])


def bring_together(flat: Flat) -> Flat:
    """Moves contractions whose results are added to the last one of them.

    **Arguments:**

    - `flat`: a step.

    **Returns:**

    A `Flat` with the same equations in another order that respects their operands.
    """
    before: dict[int, list[int]] = {}
    moved: set[int] = set()
    for *earlier, last in partial_sums(flat):
        before[last] = earlier
        moved.update(earlier)
    if not moved:
        return flat
    order: list[int] = []
    for index in range(len(flat.equations)):
        if index not in moved:
            order += [*before.get(index, ()), index]
    equations = tuple(flat.equations[i] for i in order)
    return dataclasses.replace(flat, equations=equations)
