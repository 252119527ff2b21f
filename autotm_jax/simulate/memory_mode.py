"""Memory mode (2LM): fast memory as a cache of the slow one, run by the hardware.

The cache is direct-mapped and written back. A tensor has an address in slow memory,
from a first-fit allocator that uses ranges again once they are free. A miss, of a read
or of a write, fills the line from slow memory; if the line that makes place for it was
written to, that is written back first. The hardware does not know which tensors are
dead: their lines are written back like any other.

Lines are larger here than the 64 bytes of the hardware, so that a step of 650 GB takes
seconds: tensors are contiguous and far larger than a line. Slow memory takes what is
written back at the rate of the kernels' stores, `slow_write`. That is assumed: both
arrive line by line, in the order in which something is evicted.

Real hardware does more than this. It looks up the tag in fast memory before each write,
and mixes reads and writes of slow memory line by line, which costs bandwidth of both.
Arguments conflict with tensors; here they are in fast memory and take none of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ..solve import Problem
from .kernels import Kernel, Pass
from .memories import Memories
from .outcome import Outcome
from .pool import Pool, addresses


LINE = 2**18
"""Bytes of a line, unless said otherwise."""


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that the cache moved by itself.

    - `filled`: from slow memory, for misses.
    - `written_back`: to slow memory.
    """

    filled: int = 0
    written_back: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        filled = self.filled + other.filled
        return Traffic(filled, self.written_back + other.written_back)

    def seconds(self, memories: Memories) -> float:
        """What moving them takes, in both memories."""
        filling = 1 / memories.slow_read + 1 / memories.fast_write
        writing = 1 / memories.fast_read + 1 / memories.slow_write
        return self.filled * filling + self.written_back * writing


class Cache:
    """A direct-mapped cache that writes back.

    **Arguments:**

    - `nbytes`: how large it is.
    - `line`: bytes of a line.
    """

    def __init__(self, nbytes: int, line: int = LINE):
        self.line = line
        self.tags = np.full(max(1, nbytes // line), -1, dtype=np.int64)
        self.dirty = np.zeros(self.tags.size, dtype=bool)

    def touch(self, first: int, nbytes: int, writes: bool) -> Traffic:
        """Reads or writes a range of addresses, front to back.

        **Arguments:**

        - `first`, `nbytes`: the range.
        - `writes`: whether it is written.

        **Returns:**

        The `Traffic` of its misses.
        """
        traffic = Traffic()
        start, end = first // self.line, -(-(first + nbytes) // self.line)
        # A range larger than the cache replaces its own lines.
        while start < end:
            at = start % self.tags.size
            count = min(end - start, self.tags.size - at)
            traffic += self._run(at, start, count, writes)
            start += count
        return traffic

    def _run(self, at: int, start: int, count: int, writes: bool) -> Traffic:
        tags, dirty = self.tags[at : at + count], self.dirty[at : at + count]
        wanted = np.arange(start, start + count)
        missed = tags != wanted
        back = int(np.count_nonzero(missed & dirty))
        dirty[missed] = False
        tags[:] = wanted
        if writes:
            dirty[:] = True
        return Traffic(int(np.count_nonzero(missed)) * self.line, back * self.line)


def memory_mode(
    problem: Problem,
    kernels: Sequence[Kernel],
    memories: Memories,
    limit: int,
    line: int = LINE,
) -> Outcome:
    """A step in memory mode, after one that has filled the cache.

    **Arguments:**

    - `problem`, `kernels`, `memories`: what runs, and where.
    - `limit`: bytes of fast memory. Those of values too small to decide about are taken
        off it first.
    - `line`: bytes of a line of the cache.

    **Returns:**

    An `Outcome`. `out` is written back and `into` filled; `fast_read` is the part of
    the bytes that kernels read and write which hits.

    **Raises:**

    - `ValueError`: if the limit leaves less than a line.
    """
    if line < 1:
        raise ValueError(f"A line of {line} bytes holds nothing: give 1 or more.")
    resident = int(problem.resident.max(initial=0))
    if limit - resident < line:
        raise ValueError(
            f"The limit is {limit} bytes of fast memory, and values too small to "
            f"decide about take {resident}: that leaves less than a line of {line}."
        )
    cache = Cache(limit - resident, line)
    places = _addresses(problem, line)
    seconds, traffic = 0.0, Traffic()
    for _ in range(2):
        seconds, traffic = 0.0, Traffic()
        for kernel in kernels:
            seconds += kernel.seconds
            for step in kernel.passes:
                moved = Traffic()
                for first, nbytes, writes in _ranges(problem, places, step):
                    moved += cache.touch(first, nbytes, writes)
                traffic += moved
                busy = step.traffic(memories) + moved.seconds(memories)
                seconds += max(step.seconds, busy)
    every = sum(kernel.nbytes() for kernel in kernels)
    return Outcome(
        "2LM",
        seconds,
        traffic.written_back,
        traffic.filled,
        limit,
        max(0.0, 1 - traffic.filled / every) if every else 1.0,
        f"lines of {line} bytes",
    )


def _ranges(
    problem: Problem, places: Sequence[int], step: Pass
) -> Iterator[tuple[int, int, bool]]:
    # A tensor that is read several times in one pass passes through once.
    for which, writes in ((step.reads, False), (step.writes, True)):
        for index in which:
            yield places[index], problem.tensors[index].nbytes, writes


def _addresses(problem: Problem, line: int) -> list[int]:
    """Where each tensor is: the first fit, at whole lines."""
    sizes = [-(-t.nbytes // line) * line for t in problem.tensors]
    found = addresses(problem, sizes, Pool(sum(sizes), best_fit=False))
    placed = [at for at in found if at is not None]
    assert len(placed) == len(found)  # there is place for all of them
    return placed
