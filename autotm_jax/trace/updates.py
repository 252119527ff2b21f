"""What overwrites an argument in place, and what it has to wait for.

A new parameter takes the place of the old one, and is often made in the segment where a
kernel reads the old one for the last time. Nothing says which of the two runs first.
If XLA's scheduler takes the update, the old parameter is still wanted: the new one gets
a buffer of its own until the end of the step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from .. import compat
from .primitives import Kind
from .program import Equation, Fragment, Program


@dataclasses.dataclass(frozen=True)
class Update:
    """An argument that a fragment overwrites, and reads for something else.

    - `argument`: the value that is overwritten.
    - `readers`: the equations that read it on the way to what takes its place.
    - `awaited`: what the fragment makes by kernels that read the argument, too.
    """

    argument: int
    readers: frozenset[int]
    awaited: tuple[int, ...]


def updates(program: Program, fragment: Fragment) -> tuple[Update, ...]:
    """The arguments that a fragment overwrites, and what is to be made before.

    **Arguments:**

    - `program`, `fragment`: what runs.

    **Returns:**

    An `Update` for each argument that something else reads. Nothing that is awaited is
    made from what an update makes.
    """
    equations = [program.equations[i] for i in fragment.equations]
    # A device's part of a value has no barrier with a whole one, and effects stay in
    # their order.
    if any(e.manual is not None or compat.has_effects(e.eqn) for e in equations):
        return ()
    pairs = (*program.aliases, *program.overwritten.items())
    replaced = {a: r for r, a in pairs if r in fragment.writes and a in fragment.reads}
    found: dict[int, tuple[frozenset[int], set[int]]] = {}
    for argument, result in sorted(replaced.items()):
        leading = _leading_to(equations, result)
        readers = frozenset(i for i, e in leading.items() if argument in e.operands)
        if readers:
            found[argument] = readers, _through_kernels(equations, argument)
    late = after(equations, (i for readers, _ in found.values() for i in readers))
    made_late = {v for e in equations if e.index in late for v in e.outputs}
    out = []
    for argument, (readers, made) in found.items():
        awaited = sorted(made.intersection(fragment.writes) - made_late)
        if awaited:
            out.append(Update(argument, readers, tuple(awaited)))
    return tuple(out)


def after(equations: Iterable[Equation], first: Iterable[int]) -> frozenset[int]:
    """Those of some equations, and all that need what they make.

    **Arguments:**

    - `equations`: in program order.
    - `first`: indices of some of them.

    **Returns:**

    Indices.
    """
    out, made = set(first), set[int]()
    for equation in equations:
        if equation.index in out or made.intersection(equation.operands):
            out.add(equation.index)
            made.update(equation.outputs)
    return frozenset(out)


def _leading_to(equations: list[Equation], result: int) -> dict[int, Equation]:
    out, wanted = dict[int, Equation](), {result}
    for equation in reversed(equations):
        if wanted.intersection(equation.outputs):
            out[equation.index] = equation
            wanted.update(equation.operands)
    return out


def _through_kernels(equations: list[Equation], argument: int) -> set[int]:
    """What is made from an argument, if not by fused work alone."""
    near, far = {argument}, set[int]()
    for equation in equations:
        if far.intersection(equation.operands):
            far.update(equation.outputs)
        elif near.intersection(equation.operands):
            (near if equation.kind is Kind.FUSED else far).update(equation.outputs)
    return far
