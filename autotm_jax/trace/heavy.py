"""Which operations are heavy enough for a segment of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import compat
from .flatten import Flat
from .primitives import Kind


# A kernel smaller than this fraction of the largest one (bytes read and written)
# runs inside its neighbour's segment.
_SMALLEST_KERNEL = 1 / 512


def nbytes_of(aval: Any) -> int:
    """Bytes of an abstract value on the device."""
    if not hasattr(aval, "shape") or not hasattr(aval, "dtype"):
        return 0  # a token or another abstract value without storage
    bits = compat.itemsize_bits(aval.dtype)
    return (int(np.prod(aval.shape, dtype=object)) * bits + 7) // 8


def heavy_equations(flat: Flat, kinds: Sequence[Kind]) -> list[bool]:
    """Per equation, whether it is a kernel that may start a segment."""
    size = [nbytes_of(aval) for aval in flat.avals]
    traffic = []
    for equation, kind in zip(flat.equations, kinds, strict=True):
        operands = (i for i in equation.inputs if isinstance(i, int))
        both = (*operands, *equation.outputs)
        traffic.append(sum(size[v] for v in both) if kind is Kind.KERNEL else -1)
    smallest = max(0, _SMALLEST_KERNEL * max(traffic, default=0))
    return [t >= smallest for t in traffic]
