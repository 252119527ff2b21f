"""The memory of a segment while it runs, kernel by kernel.

Between two cuts XLA runs a few kernels, and what one of them leaves to the next lives
shorter than the segment does. How XLA packs buffers depends on that, so it is written
down for each kind of segment: in *moments*, at which a kernel of it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timeline:
    """When the buffers of a segment are there.

    Of a kind of segment, operands and results are said by their positions among what it
    reads and writes; of a segment, by their values: see `named`.

    - `moments`: how many there are, numbered from 0.
    - `own`: `(bytes, first, end)` of buffers that nobody outside sees: from moment
        `first` until before moment `end`.
    - `made`: `(result, first)` of results with a place of their own.
    - `dying`: `(operand, end)` of operands that are gone before the segment is over.
    - `replaced`: `(operand, result)`, where the result takes the operand's place.
    """

    moments: int
    own: tuple[tuple[int, int, int], ...] = ()
    made: tuple[tuple[int, int], ...] = ()
    dying: tuple[tuple[int, int], ...] = ()
    replaced: tuple[tuple[int, int], ...] = ()

    def named(self, reads: Sequence[int], writes: Sequence[int]) -> Timeline:
        """The timeline of a segment of this kind, by the values it reads and writes."""
        return dataclasses.replace(
            self,
            made=tuple((writes[i], first) for i, first in self.made),
            dying=tuple((reads[i], end) for i, end in self.dying),
            replaced=tuple((reads[i], writes[j]) for i, j in self.replaced),
        )

    @staticmethod
    def of(entry: Any) -> Timeline:
        """From what `dataclasses.asdict` and JSON made of one.

        **Raises:**

        - `KeyError`, `TypeError`, `ValueError`: if it is something else.
        """
        own = tuple((int(n), int(a), int(b)) for n, a, b in entry["own"])
        made, dying, replaced = (
            tuple((int(a), int(b)) for a, b in entry[key])
            for key in ("made", "dying", "replaced")
        )
        return Timeline(int(entry["moments"]), own, made, dying, replaced)


@dataclasses.dataclass(frozen=True)
class Span:
    """A buffer of a segment that ran alone: from one kernel until before another.

    - `nbytes`: its size.
    - `first`, `end`: kernels.
    - `operand`, `result`: positions of those that are in it.
    """

    nbytes: int
    first: int
    end: int
    operand: int | None = None
    result: int | None = None


# A buffer below this part of all of them together does not decide how they pack.
_NEGLIGIBLE = 1 / 1000


def timeline_of(
    spans: Sequence[Span], first: int, end: int, surviving: Collection[int]
) -> Timeline:
    """The timeline of a kind of segment from the buffers of its kernels.

    **Arguments:**

    - `spans`: all buffers, before and after the segment, too.
    - `first`, `end`: the kernels `[first, end)` are the segment's.
    - `surviving`: positions of the operands that are read again later.

    **Returns:**

    A `Timeline`.
    """
    least = _NEGLIGIBLE * sum(s.nbytes for s in spans)
    spans = [s for s in spans if s.nbytes >= least and s.first < end and s.end > first]
    within = [(max(s.first, first), min(s.end, end), s) for s in spans]
    cuts = {first, end, *(a for a, _, _ in within), *(b for _, b, _ in within)}
    moment = {kernel: i for i, kernel in enumerate(sorted(cuts))}
    own: list[tuple[int, int, int]] = []
    made: list[tuple[int, int]] = []
    dying: list[tuple[int, int]] = []
    replaced: list[tuple[int, int]] = []
    for a, b, span in within:
        if span.operand is None and span.result is None:
            own.append((span.nbytes, moment[a], moment[b]))
        elif span.operand is None:
            assert span.result is not None
            made.append((span.result, moment[a]))
        elif span.operand in surviving:
            continue
        elif span.result is not None:
            replaced.append((span.operand, span.result))
        else:
            dying.append((span.operand, moment[b]))
    rows = tuple(sorted(made)), tuple(sorted(dying)), tuple(sorted(replaced))
    return Timeline(max(1, len(cuts) - 1), tuple(sorted(own)), *rows)
