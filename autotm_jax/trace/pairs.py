"""Which loops are pairs: one reads what the other makes, iteration by iteration."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .flatten import Flat, live
from .loops import Loop


def pair_loops(flat: Flat) -> Flat:
    """Reads a value of another loop's iteration where its stack was sliced.

    A stack that a loop makes, and that only the slices of one later loop of the same
    length in the same body read, is dropped with those slices. The two loops then count
    their iterations with one counter.

    **Arguments:**

    - `flat`: a flattened step with its loops.

    **Returns:**

    A `Flat` with the same results.
    """
    made = {s.whole: (loop, s) for loop in flat.loops for s in loop.stacks}
    readers = _readers(flat)
    by: dict[int, Any] = {}
    dropped: set[int] = set()
    for loop in flat.loops:
        for piece in loop.slices:
            if piece.whole not in made:
                continue
            first, stack = made[piece.whole]
            together = (first.parent, first.length) == (loop.parent, loop.length)
            if together and readers[piece.whole] == {loop.index}:
                by[piece.each] = stack.each
                by[loop.counter] = first.counter
                dropped.add(piece.whole)
    loops = tuple(_without(loop, dropped) for loop in flat.loops)
    while True:  # a slice of a slice, and counters of three loops in a row
        following = {v: _now(to, by) for v, to in by.items()}
        if following == by:
            break
        by = following
    equations = tuple(
        dataclasses.replace(e, inputs=tuple(_now(i, by) for i in e.inputs))
        for e in flat.equations
    )
    loops = tuple(loop.substituted(by) for loop in loops)
    return live(dataclasses.replace(flat, equations=equations, loops=loops))


def _now(atom: Any, by: Mapping[int, Any]) -> Any:
    return by.get(atom, atom) if isinstance(atom, int) else atom


def _without(loop: Loop, dropped: set[int]) -> Loop:
    slices = tuple(s for s in loop.slices if s.whole not in dropped)
    stacks = tuple(s for s in loop.stacks if s.whole not in dropped)
    return dataclasses.replace(loop, slices=slices, stacks=stacks)


def _readers(flat: Flat) -> dict[int, set[int | None]]:
    # By value, the loops that slice it; `None` for whatever else reads it.
    out: dict[int, set[int | None]] = defaultdict(set)
    slicing = {
        (piece.whole, loop.counter) for loop in flat.loops for piece in loop.slices
    }
    for equation in flat.equations:
        if equation.operands not in slicing:  # that is counted below
            for value in equation.operands:
                out[value].add(None)
    for loop in flat.loops:
        others = [a for c in loop.carries for a in (c.initial, c.after)]
        others += [s.each for s in loop.stacks]
        for value in others:
            if isinstance(value, int):
                out[value].add(None)
        for piece in loop.slices:
            out[piece.whole].add(loop.index)
    for value in flat.results:
        if isinstance(value, int):
            out[value].add(None)
    return out
