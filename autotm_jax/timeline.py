"""The memory of a segment while it runs, kernel by kernel.

Between two cuts XLA runs a few kernels, and what one of them leaves to the next lives
shorter than the segment does. How XLA packs buffers depends on that, so it is written
down for each kind of segment: in *moments*, at which kernels of it run.

XLA measures how long a buffer lives by how many others begin or end meanwhile: in
*ticks*, of which each moment has some. What overwrites a value in its place has its
life counted apart, from where the value is *handed* over.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timeline:
    """When the buffers of a segment are there.

    Of a kind of segment, operands and results are said by their positions among what it
    reads and writes; of a segment, by their values: see `named`. A buffer is there from
    moment `first` until before moment `end`, and handed over at moment `handed`: at
    `end`, or after the last one, if it is not.

    - `ticks`: of each moment.
    - `own`: `(bytes, first, handed, end)` of buffers that nobody outside sees.
    - `made`: `(result, first, handed)` of results with a place of their own.
    - `dying`: `(operand, handed, end)` of operands that nobody reads later.
    - `replaced`: `(operand, result, handed)`, where the result takes the operand's
        place.
    - `read`: `(operand, end)` of operands that others read later: `end` is when they
        are not read here any more.
    - `rivals`: `(result, other)`, where the result takes an operand's place and the
        same kernel makes the other, which is as large and might take it instead.
    """

    ticks: tuple[int, ...] = (1,)
    own: tuple[tuple[int, int, int, int], ...] = ()
    made: tuple[tuple[int, int, int], ...] = ()
    dying: tuple[tuple[int, int, int], ...] = ()
    replaced: tuple[tuple[int, int, int], ...] = ()
    read: tuple[tuple[int, int], ...] = ()
    rivals: tuple[tuple[int, int], ...] = ()

    @property
    def moments(self) -> int:
        """How many there are, numbered from 0."""
        return len(self.ticks)

    def named(self, reads: Sequence[int], writes: Sequence[int]) -> Timeline:
        """The timeline of a segment of this kind, by the values it reads and writes."""
        return dataclasses.replace(
            self,
            made=tuple((writes[i], *when) for i, *when in self.made),
            dying=tuple((reads[i], *when) for i, *when in self.dying),
            replaced=tuple((reads[i], writes[j], at) for i, j, at in self.replaced),
            read=tuple((reads[i], end) for i, end in self.read),
            rivals=tuple((writes[i], writes[j]) for i, j in self.rivals),
        )

    @staticmethod
    def of(entry: Any) -> Timeline:
        """From what `dataclasses.asdict` and JSON made of one.

        **Raises:**

        - `KeyError`, `TypeError`, `ValueError`: if it is something else.
        """
        own = tuple((int(n), int(a), int(h), int(b)) for n, a, h, b in entry["own"])
        made, dying, replaced = (
            tuple((int(a), int(b), int(c)) for a, b, c in entry[key])
            for key in ("made", "dying", "replaced")
        )
        read, rivals = (
            tuple((int(a), int(b)) for a, b in entry[key]) for key in ("read", "rivals")
        )
        ticks = tuple(int(n) for n in entry["ticks"])
        return Timeline(ticks, own, made, dying, replaced, read, rivals)


@dataclasses.dataclass(frozen=True)
class Span:
    """A buffer of a segment that ran alone.

    - `nbytes`: its size.
    - `first`, `handed`, `end`: in ticks, when it is taken, handed over, given back.
    - `operand`, `result`: positions of those that are in it.
    - `maker`: what makes the result, if it is known.
    """

    nbytes: int
    first: int
    handed: int
    end: int
    operand: int | None = None
    result: int | None = None
    maker: str | None = None


# A buffer below this part of all of them together does not decide how they pack.
_NEGLIGIBLE = 1 / 1000


def timeline_of(
    spans: Sequence[Span], first: int, end: int, surviving: Mapping[int, int]
) -> Timeline:
    """The timeline of a kind of segment from the buffers of its kernels.

    **Arguments:**

    - `spans`: all buffers, before and after the segment, too.
    - `first`, `end`: the ticks `[first, end)` are the segment's.
    - `surviving`: positions of the operands that are read again later, and the tick
        from which on the segment does not read them.

    **Returns:**

    A `Timeline`.
    """
    least = _NEGLIGIBLE * sum(s.nbytes for s in spans)
    spans = [s for s in spans if s.nbytes >= least and s.first < end and s.end > first]
    within = [
        [min(max(at, first), end) for at in (s.first, s.handed, s.end)] for s in spans
    ]
    last_read = {i: min(max(at, first), end) for i, at in surviving.items()}
    cuts = sorted({first, end}.union(last_read.values(), *within))
    moment = {tick: i for i, tick in enumerate(cuts)}
    own: list[tuple[int, int, int, int]] = []
    made: list[tuple[int, int, int]] = []
    dying: list[tuple[int, int, int]] = []
    replaced: list[tuple[int, int, int]] = []
    for span, when in zip(spans, within, strict=True):
        born, handed, dead = (moment[kernel] for kernel in when)
        if span.operand is None and span.result is None:
            own.append((span.nbytes, born, handed, dead))
        elif span.operand is None:
            assert span.result is not None
            made.append((span.result, born, handed))
        elif span.operand in surviving:
            continue
        elif span.result is not None:
            replaced.append((span.operand, span.result, handed))
        else:
            dying.append((span.operand, handed, dead))
    results = [(s, s.result) for s in spans if s.result is not None and s.maker]
    rivals = [
        (result, other)
        for a, result in results
        for b, other in results
        if a.operand is not None and b.operand is None
        # What began before, and did not take the place, cannot.
        if (a.maker, a.nbytes) == (b.maker, b.nbytes) and b.first > a.handed
    ]
    return Timeline(
        tuple(b - a for a, b in itertools.pairwise(cuts)) or (0,),
        tuple(sorted(own)),
        tuple(sorted(made)),
        tuple(sorted(dying)),
        tuple(sorted(replaced)),
        tuple((i, moment[at]) for i, at in sorted(last_read.items())),
        tuple(sorted(rivals)),
    )
