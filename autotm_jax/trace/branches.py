"""Writing out the branches of equations with variants.

While a step is cut, such an equation is one kernel that nobody looks into. Then its
branches are written out as equations of the program: a fragment with one in it becomes
the fragment that runs the default, with a further fragment for each other branch.
Whoever runs or prices fragments need not know where they come from.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from .. import compat
from .bytes import nbytes_of, ways_of
from .flat import live_equations
from .flatten import flatten
from .fragments import Signatures
from .onehot import select_one_hot
from .primitives import is_repeatable, kind_of
from .program import Branch, Equation, Fragment, Program, Value
from .variants import VARIANTS


def write_out(program: Program, platform: str | None = None) -> Program:
    """Writes out the branches of the equations with variants in a program.

    **Arguments:**

    - `program`: cut into segments, of which each has at most one such equation.
    - `platform`: as `flatten` takes it.

    **Returns:**

    A `Program` whose fragments have none. Its equations still do: they stand for the
    makers of their results.
    """
    # A context (compute type, XLA metadata) asks for this very call.
    found = [
        e
        for e in program.equations
        if e.eqn.primitive.name == VARIANTS and not compat.has_context(e.eqn)
    ]
    return _Writer(program, found, platform).written() if found else program


class _Writer:
    def __init__(self, program: Program, found: list[Equation], platform: str | None):
        self._program, self._found, self._platform = program, found, platform
        self._values = list(program.values)
        self._equations = list(program.equations)
        self._constants = list(program.constants)
        self._known = {id(array): value for value, array in program.constants}
        read = {v for e in program.equations for v in e.operands}
        self._wanted = read | program.returned
        # By equation with variants, the equations of each branch.
        self._branches = {
            e.index: [self._write(e, b) for b in e.eqn.params["branches"]]
            for e in found
        }
        self._resident = program.resident | {v for v, _ in self._constants}
        self._signatures = Signatures(self._values, self._equations, self._resident)

    def written(self) -> Program:
        """The program with its fragments rewritten."""
        program = self._program
        defaults = {v: self._run_by(f, 0) for v, f in program.recomputations.items()}
        again = {v: f for v, f in defaults.items() if self._is_repeatable(f)}
        left_out: dict[str, int] = {}
        for equation in self._found:
            for name, reason in equation.eqn.params["left_out"]:
                said = f"{equation.eqn.params['of']}, {name}: {reason}"
                left_out[said] = left_out.get(said, 0) + 1
        return dataclasses.replace(
            program,
            values=tuple(self._values),
            equations=tuple(self._equations),
            constants=tuple(self._constants),
            segments=tuple(
                dataclasses.replace(s, body=self._with_branches(s.body))
                for s in program.segments
            ),
            recomputations=again,
            joined={k: self._with_branches(f) for k, f in program.joined.items()},
            left_out=left_out,
        )

    def _is_repeatable(self, fragment: Fragment) -> bool:
        # A branch may hold what a program should not be made to run twice.
        return all(is_repeatable(self._equations[i].eqn) for i in fragment.equations)

    def _with_branches(self, fragment: Fragment) -> Fragment:
        default = self._run_by(fragment, 0)
        for index in fragment.equations:
            if index not in self._branches:
                continue
            params = self._equations[index].eqn.params
            names = params["names"]
            planned = params["planned"] or [None] * len(names)
            branches = tuple(
                Branch(params["of"], name, self._run_by(fragment, number), plan)
                for number, (name, plan) in enumerate(zip(names, planned, strict=True))
                if number
            )
            return dataclasses.replace(default, branches=branches)
        return default

    def _run_by(self, fragment: Fragment, branch: int) -> Fragment:
        if self._branches.keys().isdisjoint(fragment.equations):
            return fragment
        indices: list[int] = []
        for index in fragment.equations:
            branches = self._branches.get(index)
            indices += (index,) if branches is None else branches[branch]
        operands = {v for i in indices for v in self._equations[i].operands}
        more = operands.intersection(v for v, _ in self._constants)
        reads = tuple(sorted({*fragment.reads, *more}))
        order, writes = tuple(indices), fragment.writes
        signature = self._signatures.of(order, reads, writes)
        return Fragment(order, reads, writes, signature)

    def _write(self, equation: Equation, closed: Any) -> tuple[int, ...]:
        """Adds the equations of a branch to the program, and says which they are."""
        flat = select_one_hot(flatten(closed, platform=self._platform))
        # What the flat values are in the program: values, or literals.
        number: dict[int, Any] = dict(zip(flat.arguments, equation.inputs, strict=True))
        for value, array in flat.constants:
            number[value] = self._constant(array, flat.avals[value])
        results, copied = [], []
        for result, output in zip(flat.results, equation.outputs, strict=True):
            if output not in self._wanted:
                continue
            results.append(result)
            if isinstance(result, int) and result not in number:
                number[result] = output
            else:  # an operand, a literal or a second name for another result
                copied.append((result, output))
        indices = []
        wanted = {r for r in results if isinstance(r, int)}
        for flat_equation in live_equations(flat.equations, wanted):
            inputs = tuple(
                number[i] if isinstance(i, int) else i for i in flat_equation.inputs
            )
            for value in flat_equation.outputs:
                if value not in number:
                    aval, producer = flat.avals[value], len(self._equations)
                    number[value] = self._new(aval, producer, equation)
            outputs = tuple(number[value] for value in flat_equation.outputs)
            indices.append(self._add(flat_equation.eqn, inputs, outputs, equation))
        for result, output in copied:
            aval = self._values[output].aval
            (copy,) = compat.jaxpr_of_function(jnp.copy, aval).jaxpr.eqns
            given = number[result] if isinstance(result, int) else result
            indices.append(self._add(copy, (given,), (output,), equation))
        return tuple(indices)

    def _constant(self, array: Any, aval: Any) -> int:
        if id(array) not in self._known:
            value = self._new(aval, None, None)
            self._known[id(array)] = value
            self._constants.append((value, array))
        return self._known[id(array)]

    def _new(self, aval: Any, producer: int | None, within: Equation | None) -> int:
        index = len(self._values)
        source, loop, nbytes = "a constant", None, nbytes_of(aval)
        if within is not None:
            # Divided as what it is made for, for all that is known.
            like = self._values[within.outputs[0]]
            source, loop = like.source, like.loop
            nbytes = int(nbytes / ways_of(like.aval.shape, like.sharding))
        self._values.append(Value(index, aval, nbytes, producer, source, loop))
        return index

    def _add(
        self, eqn: Any, inputs: tuple[Any, ...], outputs: tuple[int, ...], at: Equation
    ) -> int:
        index = len(self._equations)
        kind = kind_of(eqn)
        self._equations.append(Equation(index, eqn, inputs, outputs, kind, at.home))
        return index
