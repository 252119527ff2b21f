"""The memory of a segment while it runs, kernel by kernel.

Between two cuts XLA runs a few kernels, and what one of them leaves to the next lives
shorter than the segment does. How XLA packs buffers depends on that, so it is written
down for each kind of segment: in *moments*, at which a kernel of it runs. Which value
is which is not said, only how large they are, so that equal segments are equal here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timeline:
    """When the buffers of a segment are there.

    - `moments`: how many there are, numbered from 0.
    - `own`: `(bytes, first, end)` of buffers that nobody outside sees: from moment
        `first` until before moment `end`.
    - `made`: `(bytes, first)` of results with a place of their own.
    - `dying`: `(bytes, end)` of operands that are gone before the segment is over.
    - `replaced`: bytes of each operand whose place a result takes.
    """

    moments: int
    own: tuple[tuple[int, int, int], ...] = ()
    made: tuple[tuple[int, int], ...] = ()
    dying: tuple[tuple[int, int], ...] = ()
    replaced: tuple[int, ...] = ()

    @staticmethod
    def of(entry: Any) -> Timeline:
        """From what `dataclasses.asdict` and JSON made of one.

        **Raises:**

        - `TypeError`, `ValueError`: if it is something else.
        """

        def rows(key: str, width: int) -> tuple[tuple[int, ...], ...]:
            found = tuple(tuple(int(n) for n in row) for row in entry[key])
            if any(len(row) != width for row in found):
                raise ValueError(f"{key} has rows of another length.")
            return found

        replaced = tuple(int(n) for n in entry["replaced"])
        own, made, dying = rows("own", 3), rows("made", 2), rows("dying", 2)
        return Timeline(int(entry["moments"]), own, made, dying, replaced)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True)
class Span:
    """A buffer of a segment that ran alone: from one kernel until before another.

    - `nbytes`: its size.
    - `first`, `end`: kernels.
    - `is_operand`: whether it holds an operand at first.
    """

    nbytes: int
    first: int
    end: int
    is_operand: bool


# A buffer below this part of all of them together does not decide how they pack.
_NEGLIGIBLE = 1 / 1000


def timeline_of(
    spans: Sequence[Span], first: int, end: int, surviving: Sequence[int]
) -> Timeline:
    """The timeline of a segment from the buffers of its kernels.

    **Arguments:**

    - `spans`: all buffers, before and after the segment, too.
    - `first`, `end`: the kernels `[first, end)` are the segment's.
    - `surviving`: bytes of each operand that is read again later.

    **Returns:**

    A `Timeline`.
    """
    least = _NEGLIGIBLE * sum(s.nbytes for s in spans)
    spans = [s for s in spans if s.nbytes >= least and s.first < end and s.end > first]
    within = [(max(s.first, first), min(s.end, end), s) for s in spans]
    borders = sorted(
        {first, end, *(a for a, _, _ in within), *(b for _, b, _ in within)}
    )
    moment = {kernel: i for i, kernel in enumerate(borders)}
    own, made, dying = [], [], []
    left = list(surviving)
    replaced = []
    for a, b, span in within:
        is_there_after = span.end > end
        if span.is_operand and is_there_after:
            if span.nbytes in left:
                left.remove(span.nbytes)
            else:
                replaced.append(span.nbytes)
        elif span.is_operand:
            dying.append((span.nbytes, moment[b]))
        elif is_there_after:
            made.append((span.nbytes, moment[a]))
        else:
            own.append((span.nbytes, moment[a], moment[b]))
    rows = (tuple(sorted(r)) for r in (own, made, dying, replaced))
    return Timeline(max(1, len(borders) - 1), *rows)
