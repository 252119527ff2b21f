"""Which values take memory: the ones XLA writes, and the ones worth keeping.

XLA fuses element-wise work, broadcasts and reshapes into the kernels that consume
them. A fused value therefore costs nothing to keep: it is computed again from its
*roots*, the materialised values it depends on. That is a bad bargain only where the
roots together are larger than the value itself (the sum of two matmuls, a dropout
mask cut from wide random bits); such a value is materialised where the program makes
it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .primitives import VIEWS, Kind
from .program import Equation, Value


# Roots may exceed the value by a little (a softmax from its scores and the two
# row statistics) before the value is worth memory of its own.
_ROOTS_PER_VALUE = 1.25

# A value that hangs on more fused equations than this is materialised, so that no
# fragment computes an endless chain again.
_LONGEST_CHAIN = 256


def materialised_values(
    values: Sequence[Value],
    equations: Sequence[Equation],
    resident: frozenset[int],
    returned: frozenset[int],
) -> frozenset[int]:
    """The values that have a buffer of their own between segments.

    **Arguments:**

    - `values`, `equations`: the program.
    - `resident`: arguments and constants: always at hand, so free as roots.
    - `returned`: results of the step, and what its loops take in and hand on.

    **Returns:**

    Value indices, including `resident`.
    """
    fixed = {*resident, *(v for v in returned if values[v].producer is None)}
    for equation in equations:
        if equation.kind is not Kind.FUSED:
            fixed.update(equation.outputs)
        else:
            fixed.update(returned.intersection(equation.outputs))
    # Choosing a value changes which others still cross a cut, so choose twice.
    chosen: frozenset[int] = frozenset()
    for _ in range(2):
        latest = _latest_demand(values, equations, fixed | chosen)
        operands = _kernel_operands(values, equations, fixed, latest)
        chosen = operands | _worth_keeping(
            values, equations, resident, fixed | operands, latest
        )
    return frozenset(fixed | chosen)


# Not computed: reading these again from their root costs what reading a copy does.
_PARTS = {"slice", "split", "dynamic_slice"}


def _kernel_operands(
    values: Sequence[Value],
    equations: Sequence[Equation],
    fixed: set[int],
    latest: list[int],
) -> frozenset[int]:
    chosen: set[int] = set()
    for equation in equations:
        if equation.kind is not Kind.KERNEL:
            continue
        for operand in equation.operands:
            value = operand
            producer = values[value].producer
            while producer is not None and _name(equations[producer]) in VIEWS:
                if not equations[producer].operands:
                    break  # a view of a literal
                value = equations[producer].operands[0]
                producer = values[value].producer
            if producer is None or value in fixed:
                continue
            maker = equations[producer]
            # A value made long before its first kernel is better made there.
            prompt = equation.home - maker.home <= 2
            if maker.kind is Kind.FUSED and _name(maker) not in _PARTS and prompt:
                if latest[value] > maker.home:
                    chosen.add(value)
    return frozenset(chosen)


def _name(equation: Equation) -> str:
    return equation.eqn.primitive.name


def _latest_demand(
    values: Sequence[Value], equations: Sequence[Equation], materialised: set[int]
) -> list[int]:
    # The last segment in which each value is read, directly or inside a fused
    # value that is evaluated there.
    latest = [-1] * len(values)
    for equation in reversed(equations):
        demand = -1
        if equation.kind is not Kind.FUSED:
            demand = equation.home
        for output in equation.outputs:
            here = equation.home if output in materialised else latest[output]
            demand = max(demand, here)
        for operand in equation.operands:
            latest[operand] = max(latest[operand], demand)
    return latest


def _worth_keeping(
    values: Sequence[Value],
    equations: Sequence[Equation],
    resident: frozenset[int],
    fixed: set[int],
    latest: list[int],
) -> frozenset[int]:
    # For each fused value, its roots and the bytes of each that count against it.
    roots: dict[int, dict[int, float]] = {}
    chain: dict[int, int] = {}
    kept: set[int] = set()
    parts = _bytes_of_parts(values, equations)

    def roots_of(value: int) -> dict[int, float]:
        if value in resident:
            return {}
        if value in fixed or value in kept:
            return {value: float(values[value].nbytes)}
        return roots[value]

    for equation in equations:
        if equation.kind is not Kind.FUSED:
            continue
        union: dict[int, float] = {}
        for operand in equation.operands:
            for root, counted in roots_of(operand).items():
                union[root] = max(union.get(root, 0.0), counted)
        length = 1 + max((chain.get(o, 0) for o in equation.operands), default=0)
        for output in equation.outputs:
            nbytes = values[output].nbytes
            share = 1.0
            if _name(equation) in _PARTS and equation.operands:
                share = min(1.0, nbytes / max(1, parts[equation.operands[0]]))
            roots[output] = {root: share * b for root, b in union.items()}
            chain[output] = length
            if output in fixed or latest[output] <= equation.home:
                continue
            large = sum(roots[output].values()) > _ROOTS_PER_VALUE * nbytes
            if large or length > _LONGEST_CHAIN:
                kept.add(output)
                chain[output] = 0
    return frozenset(kept)


def _bytes_of_parts(
    values: Sequence[Value], equations: Sequence[Equation]
) -> dict[int, int]:
    # The parts of a split share their root: it is the parts together that have to be
    # smaller than it before they are worth memory of their own.
    total: dict[int, int] = {}
    for equation in equations:
        if _name(equation) in _PARTS and equation.operands:
            whole = equation.operands[0]
            nbytes = sum(values[o].nbytes for o in equation.outputs)
            total[whole] = total.get(whole, 0) + nbytes
    return total
