"""The largest of some values, for people to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..budget import format_bytes


if TYPE_CHECKING:
    from ..trace import Program


# Kinds that are named.
_LINES = 6


def largest(program: Program, values: Iterable[int]) -> list[str]:
    """A few lines of text about the largest of some values, with where they are made.

    **Arguments:**

    - `program`: the program.
    - `values`: of the program.

    **Returns:**

    At most seven lines, the largest values first; equal ones of one line are counted.
    """
    ranked = sorted((program.values[v] for v in values), key=lambda v: -v.nbytes)
    kinds = list(Counter((v.nbytes, v.describe()) for v in ranked).items())
    lines = [
        f"{count:>4} x {format_bytes(nbytes):>12}  {name}"
        for (nbytes, name), count in kinds[:_LINES]
    ]
    if left := kinds[_LINES:]:
        size = format_bytes(sum(nbytes * count for (nbytes, _), count in left))
        lines.append(f"{sum(n for _, n in left):>4} smaller, {size}")
    return lines
