"""Managed memory: the driver moves pages when kernels touch them.

CUDA's unified memory under a working set that is larger than the device. The segments
run in order and touch their tensors, page by page. A page that is not there is copied
when it is touched; where there is no room, the page that was touched longest ago leaves
(LRU), and is copied to the host unless the host has the same already. Nothing runs
beside that. What a kernel makes appears on the device without a copy.

This is managed memory at its best: the driver learns when a value is dead, and what it
evicts it does not copy twice. A loop runs all iterations of a segment one after the
other, and a value of all iterations is one range of pages. All times are simulated.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from ..solve import Problem, Tensor
from .outcome import Outcome


PAGE = 2**21
"""Bytes: the blocks in which CUDA's driver evicts."""

MIGRATION = 0.48
"""The part of the link's rate at which faults migrate pages.

A kernel that reads 2 GiB for the first time takes 386.6 ms on a GTX 1080, and 13.3 ms
where they are there already: 5.75 GB/s over a PCIe 3 link, on which explicit copies
reach 12 GB/s (AutoTM's figure). The times are those that
github.com/parallelArchitect/pascal-um-benchmark reports (driver 535, CUDA 12.0), with
the driver's own prefetching.
"""

# What stands for everything of a segment that is no tensor.
_SCRATCH = -1


def managed_memory(
    problem: Problem, page: int = PAGE, migration: float = MIGRATION
) -> Outcome:
    """A step whose values are all in managed memory.

    **Arguments:**

    - `problem`: the step; its device limit is the device's memory.
    - `page`: bytes that move together.
    - `migration`: the part of the link's rate that migrations reach.

    **Returns:**

    An `Outcome`, of a step in the midst of many: the state has been used before.

    **Raises:**

    - `ValueError`: if the limit is less than a page, or nothing would ever move.
    """
    if page < 1:
        raise ValueError(f"A page of {page} bytes holds nothing: give 1 or more.")
    if not migration > 0:
        raise ValueError(
            f"Migrations reach {migration} of the link's rate: give a number greater "
            "than zero."
        )
    limit = problem.device_limit
    if limit < page:
        raise ValueError(
            f"The device limit is {int(limit)} bytes, less than a page of {page}."
        )
    memory = Pages(None if math.isinf(limit) else int(limit // page))
    walk = _Walk(problem, page, memory)
    walk.step()
    before = memory.fetched, memory.written, memory.touched
    walk.step()
    counted = (memory.fetched, memory.written, memory.touched)
    fetched, written, touched = (b - a for a, b in zip(before, counted, strict=True))
    out, into = written * page, fetched * page
    link = problem.link
    moving = (out / link.d2h + into / link.h2d) / migration
    return Outcome(
        "managed memory",
        sum(problem.compute) + moving,
        out,
        into,
        memory.most * page,
        1 - fetched / touched if touched else 1.0,
    )


class Pages:
    """The pages on a device, by least recent use.

    Ranges of pages are touched as a whole, from first to last. So what is there of a
    range are its last pages, and of them the last ones may be newer than the host's.

    **Arguments:**

    - `capacity`: pages; `None` for any number.
    """

    def __init__(self, capacity: int | None):
        self.capacity = capacity
        # By range, least recent first: pages there, and how many the host lacks.
        self.there: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self.known: set[int] = set()
        self.used = self.most = 0
        self.fetched = self.written = self.touched = 0

    def touch(self, key: int, pages: int, writes: bool) -> None:
        """Touches all pages of a range.

        **Arguments:**

        - `key`: which. If it is new, and written, it is made here.
        - `pages`: how many it has.
        - `writes`: whether they are written.
        """
        here, newer = self.there.get(key, (0, 0))
        missing, room = pages - here, self._room()
        if here and missing > room + self._older(key):
            # What is there of it leaves before it is reached.
            missing, newer = pages, 0
        elif here:
            self.there.move_to_end(key)
        self._evict(missing - room)
        self.used -= self.there.pop(key, (0, 0))[0]
        here = pages if self.capacity is None else min(pages, self.capacity)
        self.there[key] = here, (here if writes else newer)
        self.used += here
        self.most = max(self.most, self.used)
        self.touched += pages
        self.fetched += 0 if writes and key not in self.known else missing
        self.written += pages - here if writes else 0
        self.known.add(key)

    def free(self, key: int) -> None:
        """Forgets a range: nobody needs it again."""
        self.used -= self.there.pop(key, (0, 0))[0]
        self.known.discard(key)

    def _room(self) -> float:
        return math.inf if self.capacity is None else self.capacity - self.used

    def _older(self, key: int) -> int:
        total = 0
        for other, (here, _) in self.there.items():
            if other == key:
                break
            total += here
        return total

    def _evict(self, pages: float) -> None:
        while pages > 0 and self.there:
            key, (here, newer) = next(iter(self.there.items()))
            gone = min(here, int(pages))
            self.written += max(0, gone - (here - newer))
            left = here - gone
            if left:
                self.there[key] = left, min(newer, left)
            else:
                del self.there[key]
            self.used -= gone
            pages -= gone


class _Walk:
    """Touches what each segment reads, and then what it makes."""

    def __init__(self, problem: Problem, page: int, memory: Pages):
        self.page, self.memory = page, memory
        self.scratch = [
            resident + max(0, workspace)
            for resident, workspace in zip(
                problem.resident, problem.workspace, strict=True
            )
        ]
        # Per segment: tensors by position, whether they are written, and are dead then.
        self.touches: list[list[tuple[bool, int, bool]]] = [[] for _ in self.scratch]
        self.pages = [self._pages(tensor.stacked) for tensor in problem.tensors]
        for index, tensor in enumerate(problem.tensors):
            made = self._made(tensor)
            uses = sorted({*tensor.touches, *made})
            for use in uses:
                is_dead = tensor.carried is None and use == uses[-1]
                self.touches[use].append((use in made[:1], index, is_dead))
            if tensor.carried is not None:
                memory.known.add(index)  # on the host at first

    def _made(self, tensor: Tensor) -> tuple[int, ...]:
        return tensor.touches[:1] if tensor.carried is None else tensor.carried.made

    def _pages(self, nbytes: float) -> int:
        return math.ceil(nbytes / self.page)

    def step(self) -> None:
        for nbytes, touches in zip(self.scratch, self.touches, strict=True):
            self.memory.touch(_SCRATCH, self._pages(nbytes), True)
            for writes, index, _ in sorted(touches):
                self.memory.touch(index, self.pages[index], writes)
            for _, index, is_dead in touches:
                if is_dead:
                    self.memory.free(index)
            self.memory.free(_SCRATCH)
