"""Cutting a flattened step into segments, and knowing which of them are equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import compat
from .branches import write_out
from .flatten import Flat, flatten
from .fragments import FragmentBuilder
from .hasten import hasten
from .heavy import filling_equations, heavy_equations, nbytes_of
from .materialise import materialised_values
from .onehot import select_one_hot
from .postpone import Order, postpone
from .primitives import Kind, is_repeatable, kind_of
from .program import Equation, Fragment, Program, Segment, Value
from .variants import VARIANTS


def build_program(
    closed: Any, donated: Sequence[bool], order: Order = Order.WEIGHTS_LAST
) -> Program:
    """Turns the jaxpr of a step into a `Program`.

    **Arguments:**

    - `closed`: the closed jaxpr of the whole step.
    - `donated`: per flat argument, whether it is donated.
    - `order`: an `Order`.

    **Returns:**

    A `Program`. Its segments follow this order; each starts at a heavy operation.
    """
    flat = select_one_hot(flatten(closed, whole={VARIANTS}))
    if order is Order.WEIGHTS_LAST:
        flat = postpone(flat)
    values = _values(flat)
    equations = _equations(flat)
    resident = frozenset(flat.arguments) | {index for index, _ in flat.constants}
    returned = frozenset(r for r in flat.results if isinstance(r, int))
    arguments = zip(flat.arguments, donated, strict=True)
    given = frozenset(v for v, is_donated in arguments if is_donated)
    equations = hasten(equations, resident, returned, given)
    materialised = materialised_values(values, equations, resident, returned)
    fragments = FragmentBuilder(values, equations, materialised, frozenset(resident))
    segments = _segments(equations, materialised, resident, returned, fragments)
    again = _recomputations(equations, materialised, segments, fragments)
    program = Program(
        values,
        equations,
        flat.arguments,
        flat.constants,
        flat.results,
        tuple(donated),
        segments,
        again,
        _joined(equations, segments, again, resident, fragments),
    )
    return write_out(program)


def _values(flat: Flat) -> tuple[Value, ...]:
    made: dict[int, tuple[int, str]] = {}
    for index, equation in enumerate(flat.equations):
        line = compat.source_line(equation.eqn)
        if not line:
            # A sum of cotangents, say, has no line: it belongs to what it adds.
            values = (i for i in equation.inputs if isinstance(i, int))
            operands = (made[i][1] for i in values if i in made)
            line = next(operands, "the transformed step")
        for output in equation.outputs:
            made[output] = (index, line)
    names = {v: f"argument {i}" for i, v in enumerate(flat.arguments)}
    out: list[Value] = []
    for index, aval in enumerate(flat.avals):
        producer, source = made.get(index, (None, names.get(index, "a constant")))
        out.append(Value(index, aval, nbytes_of(aval), producer, source))
    return tuple(out)


def _equations(flat: Flat) -> tuple[Equation, ...]:
    kinds = [kind_of(e.eqn) for e in flat.equations]
    heavy, fills = heavy_equations(flat, kinds), filling_equations(flat, kinds)
    out: list[Equation] = []
    home = 0
    occupied = filled = False
    for index, flat_equation in enumerate(flat.equations):
        if (heavy[index] and occupied) or (fills[index] and filled):
            home += 1
            filled = False
        occupied = occupied or heavy[index] or fills[index]
        filled = filled or fills[index]
        eqn, inputs = flat_equation.eqn, flat_equation.inputs
        outputs, kind = flat_equation.outputs, kinds[index]
        out.append(Equation(index, eqn, inputs, outputs, kind, home))
    return tuple(out)


def _segments(
    equations: Sequence[Equation],
    materialised: frozenset[int],
    resident: frozenset[int],
    returned: frozenset[int],
    fragments: FragmentBuilder,
) -> tuple[Segment, ...]:
    count = max((e.home for e in equations), default=-1) + 1
    seeds: list[list[int]] = [[] for _ in range(count)]
    made: list[set[int]] = [set() for _ in range(count)]
    for equation in equations:
        own = materialised.intersection(equation.outputs)
        if equation.kind is not Kind.FUSED or own:
            seeds[equation.home].append(equation.index)
            made[equation.home] |= own
    last_read: dict[int, int] = {}
    for s in range(count):
        reads, _ = fragments.reads_and_equations(seeds[s], frozenset(made[s]))
        last_read.update(dict.fromkeys(reads, s))
    out: list[Segment] = []
    for s in range(count):
        writes = tuple(
            sorted(v for v in made[s] if v in returned or last_read.get(v, -1) > s)
        )
        body = fragments.build(seeds[s], frozenset(made[s]), writes)
        dying = tuple(
            v
            for v in body.reads
            if v not in resident and v not in returned and last_read[v] == s
        )
        out.append(Segment(s, body, dying))
    return tuple(out)


def _recomputations(
    equations: Sequence[Equation],
    materialised: frozenset[int],
    segments: Sequence[Segment],
    fragments: FragmentBuilder,
) -> dict[int, Fragment]:
    crossing = {v for s in segments for v in s.body.writes}
    out: dict[int, Fragment] = {}
    for equation in equations:
        for value in crossing.intersection(equation.outputs):
            own = materialised.intersection(equation.outputs)
            fragment = fragments.build(
                [equation.index], own, (value,), frozenset(crossing)
            )
            # What is made of nothing would be made once, at the start of the program.
            if fragment.reads and all(
                is_repeatable(equations[i].eqn) for i in fragment.equations
            ):
                out[value] = fragment
    return out


def _joined(
    equations: Sequence[Equation],
    segments: Sequence[Segment],
    again: dict[int, Fragment],
    resident: frozenset[int],
    fragments: FragmentBuilder,
) -> dict[tuple[int, int], Fragment]:
    touched: dict[int, list[int]] = {}
    for segment in segments:
        for value in sorted({*segment.body.reads, *segment.body.writes}):
            if value in again:
                touched.setdefault(value, []).append(segment.index)
    out: dict[tuple[int, int], Fragment] = {}
    for value, at in touched.items():
        if any(equations[i].kind is not Kind.FUSED for i in again[value].equations):
            continue
        roots = set(again[value].reads) - resident
        for before, use in zip(at, at[1:], strict=False):
            for k in (use - 1, use):
                body, keep = segments[k].body, k < at[-1]
                if k > before + 1 and roots.intersection(body.reads):
                    out[value, k] = fragments.join(body, again[value], keep)
    return out
