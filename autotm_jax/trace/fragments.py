"""Fragments: a few equations with the fused work they need, and a signature."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from jax.sharding import Sharding

from .. import compat
from .program import Equation, Fragment, Program, Value
from .variants import VARIANTS


# Marks signatures that mean nothing in another process.
LOCAL = "local:"


class FragmentBuilder:
    """Collects the fused equations that given seed equations need.

    **Arguments:**

    - `values`, `equations`: the program.
    - `materialised`: values that have a buffer of their own between segments.
    - `resident`: arguments and constants.
    """

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
        self._signatures = Signatures(values, equations, resident)

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
        """The fragment of the seeds' closure that makes `writes`."""
        reads, indices = self.reads_and_equations(seeds, own, at_hand)
        return self._fragment(indices, reads, writes)

    def join(self, body: Fragment, again: Fragment, keep: bool) -> Fragment:
        """A segment's body with a recomputation before it, as one fragment.

        `keep` says whether somebody wants the value after the segment.
        """
        made = set(again.writes)
        indices = tuple(sorted({*body.equations, *again.equations}))
        reads = tuple(sorted({*body.reads, *again.reads} - made))
        writes = tuple(sorted({*body.writes, *made})) if keep else body.writes
        return self._fragment(indices, reads, writes)

    def _fragment(
        self, indices: tuple[int, ...], reads: tuple[int, ...], writes: tuple[int, ...]
    ) -> Fragment:
        signature = self._signatures.of(indices, reads, writes)
        return Fragment(indices, reads, writes, signature)


def _written(param: Any) -> Any:
    # On one device there is but one place, whether that is said or not.
    is_place = isinstance(param, Sharding) and compat.device_count(param) == 1
    return None if is_place else param


class Signatures:
    """Texts that are equal for structurally equal fragments.

    **Arguments:**

    - `values`, `equations`: the program.
    - `resident`: arguments and constants.
    """

    def __init__(
        self,
        values: Sequence[Value],
        equations: Sequence[Equation],
        resident: frozenset[int],
    ):
        self._values, self._equations = values, equations
        self._resident = resident
        self._texts: dict[int, str] = {}

    def of(
        self, indices: tuple[int, ...], reads: tuple[int, ...], writes: tuple[int, ...]
    ) -> str:
        """The signature of the fragment that runs the equations at `indices`."""
        number = {v: n for n, v in enumerate(reads)}
        digest = hashlib.sha256()
        local = any(LOCAL in self._text(index) for index in indices)
        for value in reads:
            kind = "resident" if value in self._resident else "tensor"
            digest.update(f"{self._described(value)}{kind};".encode())
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
        made = (self._values[w] for w in writes)
        digest.update("".join(_divided(v) for v in made).encode())
        return (LOCAL if local else "") + digest.hexdigest()

    def _described(self, value: int) -> str:
        found = self._values[value]
        return f"{found.aval}{_divided(found)}"

    def _text(self, index: int) -> str:
        if index not in self._texts:
            eqn = self._equations[index].eqn
            items = sorted(eqn.params.items())
            params = ",".join(f"{k}={_written(v)}" for k, v in items)
            avals = ",".join(str(v.aval) for v in eqn.outvars)
            manual = self._equations[index].manual
            inside = "" if manual is None else str(manual)
            text = f"{eqn.primitive.name}[{params}]->{avals}{inside}"
            # A parameter that prints as an address (a Python callable) is equal to
            # itself only, and only in this process.
            local = f"{LOCAL}{id(eqn)}" if " at 0x" in text else ""
            self._texts[index] = text + local
        return self._texts[index]


def _divided(value: Value) -> str:
    sharding = value.sharding
    if sharding is None:
        return ""
    return f"{sharding.spec}{dict(sharding.mesh.shape)}"


def planned_fragment(
    program: Program,
    segment: int,
    variant: int = 0,
    again: Sequence[int] = (),
    dropped: Collection[int] = (),
) -> Fragment:
    """A segment as a plan runs it.

    **Arguments:**

    - `program`: the program.
    - `segment`, `variant`: the segment, and the variant that runs it.
    - `again`: values that are computed again for it and joined with it; with the
        segment, each is in `program.joined`.
    - `dropped`: values that it makes and nobody reads before they are computed again.

    **Returns:**

    A `Fragment`.
    """
    parts = [program.joined[value, segment].by(variant) for value in again]
    parts = parts or [program.segments[segment].body.by(variant)]
    if len(parts) == 1 and not dropped:
        return parts[0]
    made = set(again)
    equations = sorted({i for part in parts for i in part.equations})
    reads = sorted({v for part in parts for v in part.reads} - made)
    writes = sorted({v for part in parts for v in part.writes}.difference(dropped))
    signatures = Signatures(program.values, program.equations, program.resident)
    rows = tuple(equations), tuple(reads), tuple(writes)
    return Fragment(*rows, signatures.of(*rows))


def recomputed_together(program: Program, values: Sequence[int]) -> dict[int, Fragment]:
    """What computes values again before one segment.

    **Arguments:**

    - `program`: the program.
    - `values`: in the order in which they are computed.

    **Returns:**

    A `Fragment` for each run, by the first of the values that it makes: several results
    of one equation are made by one.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for value in values:
        groups.setdefault(program.recomputations[value].equations, []).append(value)
    found: dict[int, Fragment] = {}
    for first, *others in groups.values():
        fragment = program.recomputations[first]
        if others:
            writes = tuple(sorted((first, *others)))
            signatures = Signatures(program.values, program.equations, program.resident)
            signature = signatures.of(fragment.equations, fragment.reads, writes)
            fragment = dataclasses.replace(fragment, writes=writes, signature=signature)
        found[first] = fragment
    return found


def single_equations(program: Program) -> list[Fragment]:
    """Each equation of a program as a fragment of its own.

    **Arguments:**

    - `program`: the program.

    **Returns:**

    A `Fragment` per equation; every operand is read and every result written. Of an
    equation with variants, each equation of each branch.
    """
    made = frozenset(v for e in program.equations for v in e.outputs)
    values, equations = program.values, program.equations
    builder = FragmentBuilder(values, equations, made, program.resident)
    return [
        builder.build([e.index], frozenset(e.outputs), e.outputs)
        for e in equations
        if e.eqn.primitive.name != VARIANTS
    ]
