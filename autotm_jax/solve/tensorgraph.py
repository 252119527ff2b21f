"""AutoTM's network of one tensor (ASPLOS 2020, section 3.3; `preprocess!` in its code).

A tensor has *gadgets* g = 1 … m, each at a segment. Its vertices are SOURCE, then per
gadget DRAM_PRE (`fresh`: on the device, never written to the host), DRAM (`clean`: on
the device, with a copy on the host; from the second gadget on) and PMEM (`host`: on the
host only), then SINK. Its edges:

    SOURCE      -> DRAM_PRE(1), PMEM(1)              born here, or there
    DRAM_PRE(g) -> DRAM_PRE(g+1)
    DRAM_PRE(g) -> PMEM(g+1)                         the one write
    PMEM(g)     -> DRAM(g)                           a read
    PMEM(g)     -> PMEM(g+1)
    DRAM(g)     -> DRAM(g+1), PMEM(g+1)              a drop of a clean copy is free
    the last vertices -> SINK

A gadget at a segment that touches the tensor moves synchronously: everything waits. One
at another segment moves beside that segment. An edge out of DRAM into PMEM at a segment
that does not touch the tensor is left out: the copy could have been dropped before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .columns import Action, Columns
from .problem import Problem, Tensor
from .schedule import Fetch, Store, Stream


@dataclasses.dataclass(frozen=True)
class Gadget:
    """A segment at which a tensor may move, and whether it touches the tensor."""

    at: int
    is_touch: bool


class TensorGraphs(Columns):
    """AutoTM's networks of all tensors of a problem.

    **Arguments:**

    - `problem`: the placement problem. Its limits and recipes are not used.
    - `reach`: how many segments from a touch a tensor may move beside; 0 if all moves
        are synchronous.
    """

    def __init__(self, problem: Problem, reach: int = 0):
        super().__init__(problem)
        for index, tensor in enumerate(problem.tensors):
            self._add_tensor(index, tensor, gadgets(tensor, reach))

    def _add_tensor(
        self, index: int, tensor: Tensor, gadgets: Sequence[Gadget]
    ) -> None:
        if not tensor.movable:
            gadgets = [g for g in gadgets if g.is_touch]
        self._born_here_or_there(index, tensor)
        last = len(gadgets) - 1
        for g, gadget in enumerate(gadgets):
            following = gadgets[g + 1].at if g < last else None
            self._stay(index, tensor, g, gadget, following)
            if tensor.movable:
                self._move(index, tensor, g, gadgets)
                self._wait(index, tensor, g, gadget, following)

    def _born_here_or_there(self, index: int, tensor: Tensor) -> None:
        first, nbytes = tensor.touches[0], tensor.nbytes
        here = self.add(index, None, ("fresh", 0))
        self.fill("device", here, first, first + 1, nbytes)
        self._arrive(index, first, here)
        if tensor.movable:
            there = self.add(index, None, ("host", 0))
            self.fill("host", there, first, first + 1, nbytes)

    def _arrive(self, index: int, at: int, column: int) -> None:
        if at in self.problem.tensors[index].touches:
            self.there.setdefault((index, at), []).append(column)

    def _stay(
        self, index: int, tensor: Tensor, g: int, gadget: Gadget, following: int | None
    ) -> None:
        places = ("fresh", "clean") if tensor.movable and g > 0 else ("fresh",)
        for place in places:
            if following is None:
                self.add(index, (place, g), None)
                continue
            stay = self.add(index, (place, g), (place, g + 1))
            self.fill("device", stay, gadget.at + 1, following + 1, tensor.nbytes)
            self._arrive(index, following, stay)
            if place == "clean":
                self.fill("host", stay, gadget.at + 1, following + 1, tensor.nbytes)

    def _move(
        self, index: int, tensor: Tensor, g: int, gadgets: Sequence[Gadget]
    ) -> None:
        gadget, nbytes = gadgets[g], tensor.nbytes
        at = gadget.at
        if g < len(gadgets) - 1:
            following = gadgets[g + 1].at
            store = store_at(tensor, at)
            write = self.add(index, ("fresh", g), ("host", g + 1), store)
            self.fill("host", write, store.window[0], following + 1, nbytes)
            self.spread("out", write, store)
            if gadget.is_touch and g > 0:
                drop = self.add(index, ("clean", g), ("host", g + 1))
                self.fill("host", drop, at + 1, following + 1, nbytes)
        if g > 0:
            fetch = fetch_at(tensor, at)
            read = self.add(index, ("host", g), ("clean", g), fetch)
            self.fill("device", read, at, at + 1, nbytes)
            self._arrive(index, at, read)
            self.spread("in", read, fetch)

    def _wait(
        self, index: int, tensor: Tensor, g: int, gadget: Gadget, following: int | None
    ) -> None:
        actions: tuple[Action, ...] = ()
        if gadget.is_touch:
            actions = (Stream(tensor.value, gadget.at),)
            self.may_stream.add((index, gadget.at))
        goal = None if following is None else ("host", g + 1)
        wait = self.add(index, ("host", g), goal, *actions)
        if following is not None:
            self.fill("host", wait, gadget.at + 1, following + 1, tensor.nbytes)


def store_at(tensor: Tensor, at: int) -> Store:
    """The write of a tensor at the gadget of a segment."""
    after = max(k for k in tensor.touches if k <= at)
    if after == at:
        return Store(tensor.value, at, at + 1)
    return Store(tensor.value, after, at + 1, -1 if at == after + 1 else at)


def fetch_at(tensor: Tensor, at: int) -> Fetch:
    """The read of a tensor at the gadget of a segment."""
    use = min(k for k in tensor.touches if k >= at)
    if use == at:
        return Fetch(tensor.value, at, use)
    return Fetch(tensor.value, at, use, -1 if use == at + 1 else at + 1)


def gadgets(tensor: Tensor, reach: int) -> list[Gadget]:
    """The gadgets of a tensor, in order.

    **Arguments:**

    - `tensor`: whose.
    - `reach`: how many segments from a touch it may move beside.

    **Returns:**

    One at every touch, and one at every other segment near one.
    """
    first, last = tensor.touches[0], tensor.touches[-1]
    near = {
        k
        for touch in tensor.touches
        for k in range(max(first, touch - reach), min(last, touch + reach) + 1)
    }
    touches = set(tensor.touches)
    return [Gadget(k, k in touches) for k in sorted(near | touches)]
