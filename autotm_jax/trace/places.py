"""Results that are held to a sharding are held where they are made.

A step whose `out_shardings` are written out returns `sharding_constraint` of a value,
and reads the value itself elsewhere: a moment of Adam, in the update of its weight.
That is one array, so it is one value here, and all that read it read what is held.
"""

from __future__ import annotations

import dataclasses

from .flat import Flat, FlatEquation
from .gathers import kinds_of
from .primitives import RESHARDING, Kind


def hold_where_made(flat: Flat) -> Flat:
    """Moves constraints on results to where their operands are made.

    **Arguments:**

    - `flat`: a flattened step.

    **Returns:**

    A `Flat` with the same results. Constraints that send something from device to
    device stay where they are, as do those on what a loop leaves.
    """
    kinds = kinds_of(flat)
    results = {r for r in flat.results if isinstance(r, int)}
    makers = {v for e in flat.equations if e.loop is None for v in e.outputs}
    held: dict[int, FlatEquation] = {}
    for equation, kind in zip(flat.equations, kinds, strict=True):
        if equation.eqn.primitive.name not in RESHARDING or kind is Kind.MEMORY:
            continue
        (value,) = equation.operands or (None,)
        if value in makers - results and results.issuperset(equation.outputs):
            held.setdefault(value, equation)
    if not held:
        return flat
    others = flat.substituted({v: e.outputs[0] for v, e in held.items()})
    moved = {e.outputs[0] for e in held.values()}
    equations = []
    for equation in others.equations:
        if not moved.intersection(equation.outputs):
            equations.append(equation)
            equations += [held[v] for v in equation.outputs if v in held]
    return dataclasses.replace(others, equations=tuple(equations))
