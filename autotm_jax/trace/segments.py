"""Cutting a flattened step into segments, and knowing which of them are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .. import compat
from .flatten import Flat, FlatEquation, flatten
from .hasten import hasten
from .materialise import materialised_values
from .primitives import Kind, is_repeatable, kind_of
from .program import Equation, Fragment, Program, Segment, Value


# A kernel smaller than this fraction of the largest one (bytes read and written)
# runs inside its neighbour's segment.
_SMALLEST_KERNEL = 1 / 512


# Marks signatures that mean nothing in another process.
LOCAL = "local:"


def build_program(closed: Any, donated: Sequence[bool]) -> Program:
    """Turns the jaxpr of a step into a `Program`.

    **Arguments:**

    - `closed`: the closed jaxpr of the whole step.
    - `donated`: per flat argument, whether it is donated.

    **Returns:**

    A `Program`. Its segments follow the order of the jaxpr; each starts at a heavy
    operation.
    """
    flat = flatten(closed)
    values = _values(flat)
    equations = _equations(flat, values)
    resident = frozenset(flat.arguments) | {index for index, _ in flat.constants}
    returned = frozenset(r for r in flat.results if isinstance(r, int))
    arguments = zip(flat.arguments, donated, strict=True)
    given = frozenset(v for v, is_donated in arguments if is_donated)
    equations = hasten(equations, resident, returned, given)
    materialised = materialised_values(values, equations, resident, returned)
    fragments = _FragmentBuilder(values, equations, materialised, frozenset(resident))
    segments = _segments(equations, materialised, resident, returned, fragments)
    return Program(
        values,
        equations,
        flat.arguments,
        flat.constants,
        flat.results,
        tuple(donated),
        segments,
        _recomputations(equations, materialised, segments, fragments),
    )


def _nbytes(aval: Any) -> int:
    if not hasattr(aval, "shape") or not hasattr(aval, "dtype"):
        return 0  # a token or another abstract value without storage
    bits = compat.itemsize_bits(aval.dtype)
    return (int(np.prod(aval.shape, dtype=object)) * bits + 7) // 8


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
        out.append(Value(index, aval, _nbytes(aval), producer, source))
    return tuple(out)


def _traffic(equation: FlatEquation, values: Sequence[Value]) -> int:
    operands = (i for i in equation.inputs if isinstance(i, int))
    return sum(values[v].nbytes for v in (*operands, *equation.outputs))


def _equations(flat: Flat, values: Sequence[Value]) -> tuple[Equation, ...]:
    kinds = [kind_of(e.eqn) for e in flat.equations]
    traffic = [_traffic(e, values) for e in flat.equations]
    kernels = [t for t, k in zip(traffic, kinds, strict=True) if k is Kind.KERNEL]
    smallest = _SMALLEST_KERNEL * max(kernels, default=0)
    out: list[Equation] = []
    home = 0
    occupied = False
    for index, (flat_equation, kind) in enumerate(
        zip(flat.equations, kinds, strict=True)
    ):
        heavy = kind is Kind.KERNEL and traffic[index] >= smallest
        if heavy and occupied:
            home += 1
        occupied = occupied or heavy
        eqn, inputs, outputs = (
            flat_equation.eqn,
            flat_equation.inputs,
            flat_equation.outputs,
        )
        out.append(Equation(index, eqn, inputs, outputs, kind, home))
    return tuple(out)


class _FragmentBuilder:
    """Collects the fused equations that given seed equations need."""

    def __init__(
        self,
        values: Sequence[Value],
        equations: Sequence[Equation],
        materialised: frozenset[int],
        resident: frozenset[int],
    ):
        self._values = values
        self._equations = equations
        self._materialised = materialised
        self._resident = resident
        self._texts: dict[int, str] = {}

    def reads_and_equations(
        self,
        seeds: Iterable[int],
        own: frozenset[int],
        at_hand: frozenset[int] | None = None,
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Inputs and equations, in order, of the seeds' closure.

        `own` are materialised values that the seeds make themselves. The closure
        ends at arguments, constants and the values `at_hand`, by default all that
        are materialised.
        """
        at_hand = self._materialised if at_hand is None else at_hand
        wanted = set(seeds)
        stack = list(wanted)
        reads: set[int] = set()
        while stack:
            for operand in self._equations[stack.pop()].operands:
                if operand in own:
                    continue
                if operand in at_hand or operand in self._resident:
                    reads.add(operand)
                    continue
                producer = self._values[operand].producer
                assert producer is not None
                if producer not in wanted:
                    wanted.add(producer)
                    stack.append(producer)
        return tuple(sorted(reads)), tuple(sorted(wanted))

    def build(
        self,
        seeds: Iterable[int],
        own: frozenset[int],
        writes: tuple[int, ...],
        at_hand: frozenset[int] | None = None,
    ) -> Fragment:
        reads, indices = self.reads_and_equations(seeds, own, at_hand)
        return Fragment(indices, reads, writes, self._signature(indices, reads, writes))

    def _signature(
        self, indices: tuple[int, ...], reads: tuple[int, ...], writes: tuple[int, ...]
    ) -> str:
        number = {v: n for n, v in enumerate(reads)}
        digest = hashlib.sha256()
        local = any(LOCAL in self._text(index) for index in indices)
        for value in reads:
            kind = "resident" if value in self._resident else "tensor"
            digest.update(f"{self._values[value].aval}{kind};".encode())
        for index in indices:
            equation = self._equations[index]
            names = [
                f"%{number[i]}" if isinstance(i, int) else f"{i.val}:{i.aval}"
                for i in equation.inputs
            ]
            for output in equation.outputs:
                number[output] = len(number)
            digest.update(f"{self._text(index)}({','.join(names)});".encode())
        digest.update(str([number[w] for w in writes]).encode())
        return (LOCAL if local else "") + digest.hexdigest()

    def _text(self, index: int) -> str:
        if index not in self._texts:
            eqn = self._equations[index].eqn
            params = ",".join(f"{k}={v}" for k, v in sorted(eqn.params.items()))
            avals = ",".join(str(v.aval) for v in eqn.outvars)
            text = f"{eqn.primitive.name}[{params}]->{avals}"
            # A parameter that prints as an address (a Python callable) is equal to
            # itself only, and only in this process.
            local = f"{LOCAL}{id(eqn)}" if " at 0x" in text else ""
            self._texts[index] = text + local
        return self._texts[index]


def _segments(
    equations: Sequence[Equation],
    materialised: frozenset[int],
    resident: frozenset[int],
    returned: frozenset[int],
    fragments: _FragmentBuilder,
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
    fragments: _FragmentBuilder,
) -> dict[int, Fragment]:
    crossing = {v for s in segments for v in s.body.writes}
    out: dict[int, Fragment] = {}
    for equation in equations:
        for value in crossing.intersection(equation.outputs):
            own = materialised.intersection(equation.outputs)
            fragment = fragments.build(
                [equation.index], own, (value,), frozenset(crossing)
            )
            if all(is_repeatable(equations[i].eqn) for i in fragment.equations):
                out[value] = fragment
    return out
