"""Cutting a flattened step into segments, and knowing which of them are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from .. import compat
from .apart import apart
from .branches import write_out
from .conditionals import Chooser, pass_on, with_choices
from .flat import Flat
from .flatten import flatten
from .fragments import FragmentBuilder
from .gathers import gather_operands, kinds_of
from .hasten import hasten
from .heavy import filling_equations, heavy_equations
from .loops import Loop, path_of
from .materialise import materialised_values
from .nest import Nest, Scope
from .onehot import select_one_hot
from .pairs import pair_loops, read_elsewhere
from .partial import bring_together, partial_sums
from .places import hold_where_made
from .postpone import Order, postpone
from .primitives import Kind, is_repeatable
from .program import Equation, Fragment, Program, Segment, Value
from .sharding import Divide, divided
from .splits import split_loops
from .variants import VARIANTS


def build_program(
    closed: Any,
    donated: Sequence[bool],
    order: Order = Order.WEIGHTS_LAST,
    loops: bool = True,
    parts: Mapping[int, int] | None = None,
    carried: Mapping[int, int] | None = None,
    choose: Chooser | None = None,
    divide: Divide | None = None,
    platform: str | None = None,
) -> Program:
    """Turns the jaxpr of a step into a `Program`.

    **Arguments:**

    - `closed`: the closed jaxpr of the whole step.
    - `donated`: per flat argument, whether it is donated.
    - `order`: an `Order`.
    - `loops`: whether loops are written out. If not, each is one kernel.
    - `parts`: where pairs of loops are cut in two: see `split_loops`.
    - `carried`: by the number of an argument, that of the result which takes its place
        in the next step.
    - `choose`: how conditionals may run: see `with_choices`.
    - `divide`: for a step on a mesh, asks how its values are divided.
    - `platform`: as `flatten` takes it.

    **Returns:**

    A `Program`. Its segments follow this order; each starts at a heavy operation.
    """

    def written_out(closed_loops: Collection[int] = ()) -> Flat:
        flat = flatten(closed, {VARIANTS}, loops, closed_loops, platform)
        return pair_loops(pass_on(divided(flat, divide)))

    flat = written_out()
    if elsewhere := read_elsewhere(flat):
        flat = written_out(elsewhere)
    flat = with_choices(hold_where_made(flat), choose)
    flat = select_one_hot(split_loops(flat, parts or {}))
    if order is Order.WEIGHTS_LAST:
        flat = postpone(flat)
    flat = bring_together(gather_operands(flat))
    values = _values(flat, compat.argument_names(closed))
    equations = _equations(flat)
    counters = frozenset(loop.counter for loop in flat.loops)
    constants = frozenset(index for index, _ in flat.constants)
    resident = frozenset(flat.arguments) | constants | counters
    returned = frozenset(r for r in flat.results if isinstance(r, int))
    arguments = zip(flat.arguments, donated, strict=True)
    given = frozenset(v for v, is_donated in arguments if is_donated)
    scopes, scope_of = _scopes(flat, equations), [v.loop for v in values]
    nest = Nest(flat.loops, scopes, scope_of)
    equations = hasten(equations, nest, resident, returned, given)
    pairs = _carried(flat, values, given, carried or {})
    equations, scopes = apart(equations, scopes, values, frozenset(pairs.values()))
    nest = Nest(flat.loops, scopes, scope_of)
    at_borders = frozenset(_at_borders(flat.loops))
    materialised = materialised_values(
        values, equations, resident, returned | at_borders
    )
    fragments = FragmentBuilder(values, equations, materialised, frozenset(resident))
    segments = _segments(equations, materialised, resident, returned, nest, fragments)
    again = _recomputations(equations, materialised, segments, nest, fragments)
    program = Program(
        values,
        equations,
        flat.arguments,
        flat.constants,
        flat.results,
        tuple(donated),
        segments,
        again,
        _joined(equations, segments, again, resident, nest, fragments),
        loops=flat.loops,
        carried=_read(pairs, segments, nest),
        order=order,
        parts=parts or {},
    )
    return write_out(program, platform)


def backward_segments(program: Program) -> list[int]:
    """The segments with something of a backward pass, in order.

    JAX names what it transposes.
    """

    def is_transposed(index: int) -> bool:
        return "transpose(" in compat.name_stack(program.equations[index].eqn)

    segments = program.segments
    return [s.index for s in segments if any(map(is_transposed, s.body.equations))]


def _carried(
    flat: Flat,
    values: Sequence[Value],
    given: frozenset[int],
    numbers: Mapping[int, int],
) -> dict[int, int]:
    """Arguments and the results in their places, where each is nothing else besides."""
    once = Counter(r for r in flat.results if isinstance(r, int))
    begun = [stack.begun for loop in flat.loops for stack in loop.stacks]
    out: dict[int, int] = {}
    for number, place in numbers.items():
        argument, result = flat.arguments[number], flat.results[place]
        if argument not in given or not isinstance(result, int) or once[result] != 1:
            continue
        is_passed = result == argument
        is_made = values[result].producer is not None and values[result].loop is None
        is_free = argument not in begun and values[argument].aval.shape
        if is_free and (is_passed or (is_made and not once[argument])):
            out[argument] = result
    return out


def _read(
    carried: Mapping[int, int], segments: Sequence[Segment], nest: Nest
) -> dict[int, int]:
    # What is not read could not be fetched for anything.
    read = {v for s in segments for v in s.body.reads}
    read.update(v for v, _ in nest.borders())
    return {argument: r for argument, r in carried.items() if argument in read}


def _at_borders(loops: Sequence[Loop]) -> Iterator[int]:
    # What loops hand on has memory of its own, inside and outside.
    for loop in loops:
        handed = [a for c in loop.carries for a in (c.initial, c.after)]
        handed += [a for s in loop.stacks for a in (s.each, s.begun)]
        handed += loop.constants
        yield from (v for v in handed if isinstance(v, int))
        yield from loop.entered
        yield from loop.left_with


def _values(flat: Flat, names: Sequence[str]) -> tuple[Value, ...]:
    made: dict[int, tuple[int | None, str]] = {}
    loop_of: dict[int, int | None] = {}
    for loop in flat.loops:
        loop_of |= dict.fromkeys((loop.counter, *loop.entered), loop.index)
        loop_of |= dict.fromkeys(loop.left_with, loop.parent)
        handed = (loop.counter, *loop.entered, *loop.left_with)
        made.update((v, (None, f"the loop at {loop.source}")) for v in handed)
    for index, equation in enumerate(flat.equations):
        line = compat.source_line(equation.eqn)
        if not line:
            # A sum of cotangents, say, has no line: it belongs to what it adds.
            values = (i for i in equation.inputs if isinstance(i, int))
            operands = (made[i][1] for i in values if i in made)
            line = next(operands, "")
        for output in equation.outputs:
            made[output] = (index, line)
            loop_of[output] = equation.loop
    # What has no operand either, as zeros have none, is made for what reads it.
    for equation in reversed(flat.equations):
        line = next((made[v][1] for v in equation.outputs), "")
        for value in equation.operands:
            if value in made and not made[value][1]:
                made[value] = made[value][0], line
    arguments = zip(flat.arguments, names, strict=True)
    said = {v: f"argument {name}" for v, name in arguments}
    in_parts = {v for e in flat.equations if e.manual is not None for v in e.outputs}
    out: list[Value] = []
    for index, aval in enumerate(flat.avals):
        producer, source = made.get(index, (None, said.get(index, "a constant")))
        source = source or "the transformed step"
        size, loop = flat.nbytes(index), loop_of.get(index)
        sharding = flat.shardings.get(index)
        rest = producer, source, loop, sharding, index in in_parts
        out.append(Value(index, aval, size, *rest))
    return tuple(out)


def _equations(flat: Flat) -> tuple[Equation, ...]:
    kinds = kinds_of(flat)
    heavy, fills = heavy_equations(flat, kinds), filling_equations(flat, kinds)
    for _, *others in partial_sums(flat):
        for index in others:
            heavy[index] = False
    out: list[Equation] = []
    home, scope = 0, None
    occupied = filled = False
    for index, flat_equation in enumerate(flat.equations):
        if flat_equation.loop != scope:
            way = _way(flat.loops, scope, flat_equation.loop)
            home, scope = home + len(way), flat_equation.loop
            occupied = filled = False
        elif (heavy[index] and occupied) or (fills[index] and filled):
            home += 1
            filled = False
        occupied = occupied or heavy[index] or fills[index]
        filled = filled or fills[index]
        eqn, inputs = flat_equation.eqn, flat_equation.inputs
        outputs, kind = flat_equation.outputs, kinds[index]
        manual = flat_equation.manual
        out.append(Equation(index, eqn, inputs, outputs, kind, home, manual))
    return tuple(out)


def _way(loops: Sequence[Loop], scope: Scope, goal: Scope) -> list[Scope]:
    """The scopes from one to another: out of loops, and into loops.

    Each has a segment, so that one precedes and one follows every loop.
    """
    leaving, entering = path_of(loops, scope), path_of(loops, goal)
    shared = sum(a == b for a, b in zip(leaving, entering, strict=False))
    around: list[Scope] = [None, *entering]
    outwards = [loops[i].parent for i in reversed(leaving[shared:])]
    return [*outwards, *around[shared + 1 :]]


def _scopes(flat: Flat, equations: Sequence[Equation]) -> list[Scope]:
    """Per segment, the loop in whose body it runs."""
    out: list[Scope] = [None] if equations else []
    scope: Scope = None
    pairs = zip(equations, flat.equations, strict=True)
    for equation, flat_equation in sorted(pairs, key=lambda pair: pair[0].index):
        if flat_equation.loop != scope:
            out += _way(flat.loops, scope, flat_equation.loop)
            scope = flat_equation.loop
        out += [scope] * (equation.home + 1 - len(out))
    return out + _way(flat.loops, scope, None)


def _segments(
    equations: Sequence[Equation],
    materialised: frozenset[int],
    resident: frozenset[int],
    returned: frozenset[int],
    nest: Nest,
    fragments: FragmentBuilder,
) -> tuple[Segment, ...]:
    count = len(nest.scopes)
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
        for value in reads:
            # In a loop, what comes from outside is read again by the next iteration.
            at = max(nest.touched(value, s))
            inner = nest.child(nest.place(value, s), s)
            last_read[value] = max(last_read.get(value, -1), at + (inner is not None))
    for value, at in nest.borders():
        # At a border: after the segment is over.
        end = max(nest.touched(value, at)) + 1
        last_read[value] = max(last_read.get(value, -1), end)
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
        out.append(Segment(s, body, dying, nest.scopes[s]))
    return tuple(out)


def _recomputations(
    equations: Sequence[Equation],
    materialised: frozenset[int],
    segments: Sequence[Segment],
    nest: Nest,
    fragments: FragmentBuilder,
) -> dict[int, Fragment]:
    crossing = {v for s in segments for v in s.body.writes}
    crossing.update(v for v, _ in nest.borders())
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
    nest: Nest,
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
                if nest.place(value, k) != segments[k].loop:
                    continue  # computed again before a loop, not in it
                if k > before + 1 and roots.intersection(body.reads):
                    out[value, k] = fragments.join(body, again[value], keep)
    return out
