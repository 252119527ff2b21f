"""Kernels over two memories: time by a roofline, wherever the operands are.

AutoTM times its kernels in every IO configuration on DRAM and Optane. Here the time is
modelled. A segment is a few passes over memory, one after the other: in each of them
arithmetic runs beside memory traffic, and the traffic of the two memories adds up.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping

from .memories import Memories


@dataclasses.dataclass(frozen=True)
class Pass:
    """What runs in one go over memory.

    - `seconds`: of arithmetic, if memory took no time.
    - `reads`, `writes`: bytes by tensor, as positions in `Problem.tensors`.
    - `other_reads`, `other_writes`: bytes of what is never slow: arguments, results,
        and values too small to decide about.
    """

    seconds: float
    reads: Mapping[int, int]
    writes: Mapping[int, int]
    other_reads: int = 0
    other_writes: int = 0

    @property
    def tensors(self) -> frozenset[int]:
        """What it reads or writes of the tensors."""
        return frozenset((*self.reads, *self.writes))

    def traffic(self, memories: Memories, slow: Collection[int] = ()) -> float:
        """Seconds that it reads and writes."""
        into = sum(n for t, n in self.reads.items() if t in slow)
        out = sum(n for t, n in self.writes.items() if t in slow)
        reads = self.other_reads + sum(self.reads.values()) - into
        writes = self.other_writes + sum(self.writes.values()) - out
        fast = reads / memories.fast_read + writes / memories.fast_write
        return fast + into / memories.slow_read + out / memories.slow_write

    def time(self, memories: Memories, slow: Collection[int] = ()) -> float:
        """Seconds with some of its tensors in slow memory."""
        return max(self.seconds, self.traffic(memories, slow))

    def is_separable(self, memories: Memories) -> bool:
        """Whether each tensor adds the same, wherever the others are.

        Either memory is what it waits for even with all of them in the fast one, or
        arithmetic is with all of them in the slow one.
        """
        slowest = self.traffic(memories, self.tensors)
        return self.traffic(memories) >= self.seconds or slowest <= self.seconds


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What a segment does, apart from where its values are.

    - `passes`: one after the other.
    - `seconds`: of launches.
    """

    passes: tuple[Pass, ...]
    seconds: float = 0.0

    def time(self, memories: Memories, slow: Collection[int] = ()) -> float:
        """Seconds with some of its tensors in slow memory."""
        return self.seconds + sum(p.time(memories, slow) for p in self.passes)

    @property
    def tensors(self) -> frozenset[int]:
        """What it reads or writes of the tensors."""
        return frozenset().union(*(p.tensors for p in self.passes))

    def nbytes(self, among: Collection[int] | None = None) -> int:
        """Bytes that it reads and writes of its tensors, or of some of them."""
        moved = (
            item for p in self.passes for d in (p.reads, p.writes) for item in d.items()
        )
        return sum(n for t, n in moved if among is None or t in among)

    def without_overlap(self) -> Kernel:
        """The same if arithmetic waited for memory, and memory for arithmetic."""
        passes: list[Pass] = []
        for step in self.passes:
            passes.append(Pass(step.seconds, {}, {}))
            passes.append(dataclasses.replace(step, seconds=0.0))
        return Kernel(tuple(passes), self.seconds)

    def groups(self, memories: Memories) -> list[tuple[int, ...]]:
        """Its tensors, divided so that groups add to its time independently."""
        groups = [{t} for t in sorted(self.tensors)]
        for step in self.passes:
            if not step.is_separable(memories):
                touched = [g for g in groups if g & step.tensors]
                groups = [g for g in groups if not g & step.tensors]
                groups.append(set().union(*touched))
        return sorted(tuple(sorted(g)) for g in groups)


def placements(group: tuple[int, ...], most: int) -> Iterator[frozenset[int]]:
    """Which tensors of a group may be slow together, besides none.

    **Arguments:**

    - `group`: tensors.
    - `most`: the cap. All of them together are always among those that are left, and
        what else is left are those with the fewest tensors.

    **Returns:**

    Sets of tensors.

    **Raises:**

    - `ValueError`: if none would be left.
    """
    if most < 1:
        raise ValueError(
            f"The cap is {most}, which leaves no placement: give 1 or more."
        )
    sizes = range(1, len(group))
    smaller = itertools.chain.from_iterable(
        itertools.combinations(group, n) for n in sizes
    )
    few = itertools.islice(smaller, most - 1)
    return map(frozenset, itertools.chain(few, [group]))
