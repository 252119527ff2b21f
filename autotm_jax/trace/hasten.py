"""Updating each parameter when its gradient is ready, not at the end of the step.

An optimizer is traced after the whole backward pass, so in program order every
gradient waits for the last one. What follows the last kernel of a program has nothing
to wait for but its operands: it is moved into the segment that makes the last of
them. A new parameter takes the place of the old one if that is donated, so it is not
made before the old one has been read for the last time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .. import compat
from .nest import Nest
from .primitives import Kind
from .program import Equation


def hasten(
    equations: Sequence[Equation],
    nest: Nest,
    resident: frozenset[int],
    returned: frozenset[int],
    donated: frozenset[int],
) -> tuple[Equation, ...]:
    """Moves the equations after the last kernel to where their operands are made.

    **Arguments:**

    - `equations`: the program, with the segments of program order as homes.
    - `nest`: its loops, into which nothing is moved.
    - `resident`: arguments and constants.
    - `returned`: results of the step.
    - `donated`: arguments whose buffers may hold results.

    **Returns:**

    The equations, in the same order, with new homes.
    """
    homes = [0, *(e.home for e in equations)]
    fixed = [
        e.index
        for e, before in zip(equations, homes, strict=False)
        if e.kind is Kind.KERNEL
        or compat.has_effects(e.eqn)
        or e.home > before
        or nest.scopes[e.home] is not None
    ]
    tail = fixed[-1] + 1 if fixed else 0
    last_read = _last_reads(equations[:tail], donated)
    ready = dict.fromkeys(resident, 0)
    for loop in nest.loops:
        first, end = nest.ranges[loop.index]
        ready.update(dict.fromkeys(loop.entered, first))
        ready.update(dict.fromkeys(loop.left_with, end))
    # The donated arguments that a fused value is computed from.
    uses: dict[int, frozenset[int]] = {v: frozenset([v]) for v in donated}
    out: list[Equation] = list(equations[:tail])
    for equation in equations:
        reads = frozenset().union(
            *(uses.get(v, frozenset()) for v in equation.operands)
        )
        home = equation.home
        if equation.index >= tail:
            home = max((ready[v] for v in equation.operands), default=0)
            if returned.intersection(equation.outputs):
                home = max([home, *(last_read.get(v, 0) for v in reads)])
            around = nest.child(None, home)
            home = home if around is None else nest.ranges[around][1]
            out.append(dataclasses.replace(equation, home=home))
        is_fused = equation.kind is Kind.FUSED
        for output in equation.outputs:
            if is_fused and output not in returned:
                ready[output] = max((ready[v] for v in equation.operands), default=0)
                uses[output] = reads
            else:
                ready[output] = home
    return tuple(out)


def _last_reads(
    equations: Sequence[Equation], donated: frozenset[int]
) -> dict[int, int]:
    # Through fused work, an argument is read where the kernels that consume it are.
    latest: dict[int, int] = {}
    for equation in reversed(equations):
        demand = max((latest.get(v, 0) for v in equation.outputs), default=0)
        if equation.kind is not Kind.FUSED:
            demand = equation.home
        for operand in equation.operands:
            latest[operand] = max(latest.get(operand, 0), demand)
    return {v: latest[v] for v in donated if v in latest}
