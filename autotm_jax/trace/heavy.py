"""Which operations are heavy enough for a segment of their own."""

from __future__ import annotations

from collections.abc import Sequence

from .flat import Flat
from .loops import repeats
from .primitives import Kind
from .variants import VARIANTS


# A kernel smaller than this fraction of the largest one (bytes read and written)
# runs inside its neighbour's segment.
_SMALLEST_KERNEL = 1 / 512


def heavy_equations(flat: Flat, kinds: Sequence[Kind]) -> list[bool]:
    """Per equation, whether it is a kernel that may start a segment.

    One with variants always does, so that no segment has two.
    """
    large = _large(flat, kinds)
    return [
        (k is Kind.KERNEL and n in large) or e.eqn.primitive.name == VARIANTS
        for n, (e, k) in enumerate(zip(flat.equations, kinds, strict=True))
    ]


def filling_equations(flat: Flat, kinds: Sequence[Kind]) -> list[bool]:
    """Per equation, whether it is no kernel but works in a large buffer of its own.

    A scatter into zeros does, for one. XLA fills all such buffers of a segment when
    it begins, so no segment should have two. Nor should one be beside an equation with
    variants, whose workspace is what they differ in.
    """
    literals = {
        e.outputs[0]
        for e in flat.equations
        if e.eqn.primitive.name == "broadcast_in_dim"
        and not any(isinstance(i, int) for i in e.inputs)
    }
    large = _large(flat, kinds)
    return [
        (k is Kind.MEMORY and n in large and not literals.isdisjoint(e.operands))
        or e.eqn.primitive.name == VARIANTS
        for n, (e, k) in enumerate(zip(flat.equations, kinds, strict=True))
    ]


def _large(flat: Flat, kinds: Sequence[Kind]) -> set[int]:
    # By the bytes that an equation reads and writes in a step.
    size = [flat.nbytes(value) for value in range(len(flat.avals))]
    traffic = [
        sum(size[v] for v in (*e.operands, *e.outputs)) * repeats(flat.loops, e.loop)
        for e in flat.equations
    ]
    kernels = [t for t, k in zip(traffic, kinds, strict=True) if k is Kind.KERNEL]
    smallest = _SMALLEST_KERNEL * max(kernels, default=0)
    return {n for n, t in enumerate(traffic) if t >= smallest}
