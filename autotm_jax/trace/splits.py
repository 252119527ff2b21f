"""Part of a loop: a pair of loops cut in two, so that each part has its own plan.

What is decided for one iteration is decided for all. A budget between "all iterations
stay" and "all move" is therefore met by two loops instead of one: the first runs some
of the iterations, the second the rest, and what the loop carries goes from one to the
other. The loop that it is paired with is cut at the same iteration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from .flat import Flat, FlatEquation
from .loops import Carry, Loop, Stack, can_be_filled, path_of


def paired_loops(flat: Flat) -> dict[int, tuple[int, ...]]:
    """The loops that can be cut in two: each with those it is paired with.

    **Arguments:**

    - `flat`: a flattened step with its loops paired.

    **Returns:**

    By the first loop of each pair, in program order, all of its loops.
    """
    together: dict[int, list[int]] = {}
    for loop in flat.loops:
        together.setdefault(loop.counter, []).append(loop.index)
    return {
        group[0]: tuple(group)
        for group in together.values()
        # Two loops have to write to one stack.
        if len(group) > 1
        and all(
            can_be_filled(flat.avals[s.whole])
            for index in group
            for s in flat.loops[index].stacks
        )
    }


def split_loops(flat: Flat, parts: Mapping[int, int]) -> Flat:
    """Cuts pairs of loops in two.

    **Arguments:**

    - `flat`: a flattened step with its loops paired.
    - `parts`: by the first loop of a pair, how many iterations the part takes that
        begins with iteration 0. Anything but a proper part is no cut.

    **Returns:**

    A `Flat` with the same results.
    """
    groups = paired_loops(flat)
    for first, count in parts.items():
        if first in groups and 0 < count < flat.loops[first].length:
            flat = _Cut(flat, groups[first], count).run()
    return flat


class _Cut:
    """One pair of loops, cut after some iterations.

    The part with the low iterations keeps the numbers of its values; those of the other
    part are new.
    """

    def __init__(self, flat: Flat, group: tuple[int, ...], count: int):
        self.flat, self.group, self.count = flat, group, count
        self.avals, self.shardings = list(flat.avals), dict(flat.shardings)
        self.inside = {
            loop.index
            for loop in flat.loops
            if set(path_of(flat.loops, loop.index)) & set(group)
        }
        number = len(flat.loops)
        self.loop_of: dict[int | None, int] = {
            old: number + i for i, old in enumerate(sorted(self.inside))
        }
        self.value_of: dict[int, int] = {}
        for value in self._values_inside():
            self.value_of.setdefault(value, self._like(value))

    def run(self) -> Flat:
        low, high = dict(enumerate(self.flat.loops)), {}
        for index in sorted(self.inside):
            low[index], high[index] = self._parts(self.flat.loops[index])
        loops = [low[i] for i in sorted(low)] + [high[i] for i in sorted(high)]
        return dataclasses.replace(
            self.flat,
            avals=tuple(self.avals),
            equations=tuple(self._equations()),
            loops=tuple(loops),
            shardings=self.shardings,
        )

    def _values_inside(self) -> Iterator[int]:
        for equation in self.flat.equations:
            if equation.loop in self.inside:
                yield from equation.outputs
        for loop in self.flat.loops:
            if loop.index in self.inside:
                yield from (loop.counter, *loop.entered)
                if loop.index not in self.group:
                    yield from loop.left_with

    def _like(self, value: int) -> int:
        self.avals.append(self.avals[value])
        if value in self.shardings:
            self.shardings[len(self.avals) - 1] = self.shardings[value]
        return len(self.avals) - 1

    def _high(self, atom: Any) -> Any:
        return self.value_of.get(atom, atom) if isinstance(atom, int) else atom

    def _parts(self, loop: Loop) -> tuple[Loop, Loop]:
        """A loop of the pair, or one inside it, in the low and in the high part."""
        copy = dataclasses.replace(
            loop,
            index=self.loop_of[loop.index],
            parent=self.loop_of.get(loop.parent, loop.parent),
            counter=self._high(loop.counter),
            carries=tuple(Carry(*map(self._high, c)) for c in _atoms(loop.carries)),
            slices=tuple(Stack(*map(self._high, s)) for s in _atoms(loop.slices)),
            stacks=tuple(Stack(*map(self._high, s)) for s in _atoms(loop.stacks)),
            condition=loop.substituted(self.value_of).condition,
        )
        if loop.index not in self.group:
            return loop, copy
        low = dataclasses.replace(loop, length=self.count)
        start, length = loop.start + self.count, loop.length - self.count
        high = dataclasses.replace(copy, start=start, length=length)
        if loop.reverse:
            high, low = self._in_a_row(high, low)
        else:
            low, high = self._in_a_row(low, high)
        return low, high

    def _in_a_row(self, first: Loop, second: Loop) -> tuple[Loop, Loop]:
        # What the first makes, the second goes on with.
        between = [self._like(c.result) for c in first.carries]
        begun = [self._like(s.whole) for s in first.stacks]

        def named(records: Any, field: str, values: list[int]) -> tuple[Any, ...]:
            pairs = zip(records, values, strict=True)
            return tuple(dataclasses.replace(r, **{field: v}) for r, v in pairs)

        return dataclasses.replace(
            first,
            carries=named(first.carries, "result", between),
            stacks=named(first.stacks, "whole", begun),
        ), dataclasses.replace(
            second,
            carries=named(second.carries, "initial", between),
            stacks=named(second.stacks, "begun", begun),
        )

    def _equations(self) -> Iterator[FlatEquation]:
        waiting: list[FlatEquation] = []
        around: int | None = None  # the loop of the pair whose equations these are
        for equation in (*self.flat.equations, None):
            loop = None if equation is None else equation.loop
            here = set(path_of(self.flat.loops, loop)) & set(self.group)
            now = next(iter(here), None)
            if waiting and now != around:
                yield from self._both(waiting, around)
                waiting = []
            around = now
            if equation is not None and around is not None:
                waiting.append(equation)
            elif equation is not None:
                yield equation

    def _both(
        self, equations: list[FlatEquation], loop: int | None
    ) -> Iterator[FlatEquation]:
        assert loop is not None
        copies = [
            dataclasses.replace(
                e,
                inputs=tuple(map(self._high, e.inputs)),
                outputs=tuple(map(self._high, e.outputs)),
                loop=None if e.loop is None else self.loop_of[e.loop],
            )
            for e in equations
        ]
        is_reverse = self.flat.loops[loop].reverse
        parts = (copies, equations) if is_reverse else (equations, copies)
        for part in parts:
            yield from part


def _atoms(records: Any) -> Iterator[tuple[Any, ...]]:
    for record in records:
        yield tuple(getattr(record, f.name) for f in dataclasses.fields(record))
