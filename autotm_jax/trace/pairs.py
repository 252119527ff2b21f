"""Which loops are pairs: one reads what the other makes, iteration by iteration."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .flat import Flat, live
from .loops import Loop, path_of


def pair_loops(flat: Flat) -> Flat:
    """Reads a value of another loop's iteration where its stack was sliced.

    A stack that a loop makes, and that only the slices of later loops of the same
    length in the same body read, is dropped with those slices. The loops then count
    their iterations with one counter. A loop that does nothing but move slices is left
    as it is.

    **Arguments:**

    - `flat`: a flattened step with its loops.

    **Returns:**

    A `Flat` with the same results.
    """
    made = {s.whole: (loop, s) for loop in flat.loops for s in loop.stacks}
    readers, working = _readers(flat), _working(flat)
    by: dict[int, Any] = {}
    dropped: set[int] = set()

    def may_go(maker: Loop, whole: int) -> bool:
        return all(
            index is not None
            and index in working
            and flat.loops[index].parent == maker.parent
            and flat.loops[index].length == maker.length
            for index in readers[whole]
        )

    for loop in flat.loops:
        for piece in loop.slices:
            if piece.whole not in made or not may_go(made[piece.whole][0], piece.whole):
                continue
            first, stack = made[piece.whole]
            # A slice that is stacked again has come from a loop before.
            if isinstance(stack.each, int) and stack.each in by:
                continue
            by[piece.each] = stack.each
            counter, other = _end(first.counter, by), _end(loop.counter, by)
            if counter != other:
                by[other] = counter
            dropped.add(piece.whole)
    by = {value: _end(value, by) for value in by}
    loops = tuple(_without(loop, dropped) for loop in flat.loops)
    return live(dataclasses.replace(flat, loops=loops).substituted(by))


def read_elsewhere(flat: Flat) -> set[int]:
    """Loops in the body of another one whose stacks are read in a third one's.

    The gradient of a loop in a loop makes such stacks. Slice by slice nothing can be
    decided about them. But if the loop that makes them stays one equation, all of it
    can be computed again where they are read.

    **Arguments:**

    - `flat`: a flattened step with its loops paired.

    **Returns:**

    The `id`s of the equations of these loops.
    """
    made = {s.whole: loop for loop in flat.loops for s in loop.stacks}
    return {
        id(made[piece.whole].eqn)
        for loop in flat.loops
        for piece in loop.slices
        if piece.whole in made and made[piece.whole].parent != loop.parent
    }


def _end(atom: Any, by: Mapping[int, Any]) -> Any:
    # Counters of three loops in a row are one.
    while isinstance(atom, int) and atom in by:
        atom = by[atom]
    return atom


def _without(loop: Loop, dropped: set[int]) -> Loop:
    slices = tuple(s for s in loop.slices if s.whole not in dropped)
    stacks = tuple(s for s in loop.stacks if s.whole not in dropped)
    return dataclasses.replace(loop, slices=slices, stacks=stacks)


def _working(flat: Flat) -> set[int]:
    # The loops with an equation that is not there for their own slices.
    out: set[int] = set()
    slicing = _slicing(flat)
    slices = {piece.each for loop in flat.loops for piece in loop.slices}
    for equation in flat.equations:
        if equation.operands not in slicing and slices.isdisjoint(equation.outputs):
            out.update(path_of(flat.loops, equation.loop))
    return out


def _readers(flat: Flat) -> dict[int, set[int | None]]:
    # By value, the loops that slice it; `None` for whatever else reads it.
    out: dict[int, set[int | None]] = defaultdict(set)
    slicing = _slicing(flat)
    for equation in flat.equations:
        if equation.operands not in slicing:  # that is counted below
            for value in equation.operands:
                out[value].add(None)
    for loop in flat.loops:
        others = [a for c in loop.carries for a in (c.initial, c.after)]
        others += [*loop.constants, *(s.each for s in loop.stacks)]
        for value in others:
            if isinstance(value, int):
                out[value].add(None)
        for piece in loop.slices:
            out[piece.whole].add(loop.index)
    for value in flat.results:
        if isinstance(value, int):
            out[value].add(None)
    return out


def _slicing(flat: Flat) -> set[tuple[int, ...]]:
    # What the equations read that take slices out of stacks.
    return {(piece.whole, loop.counter) for loop in flat.loops for piece in loop.slices}
