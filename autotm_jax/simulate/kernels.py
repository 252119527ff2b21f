"""Kernels over two memories: time by a roofline, wherever the operands are.

AutoTM times its kernels in every IO configuration on DRAM and Optane. Here the time is
modelled: arithmetic runs beside memory traffic, and the traffic of the memories adds
up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping


@dataclasses.dataclass(frozen=True)
class Memories:
    """Bytes per second of the two memories, as kernels see them.

    - `fast`: reads and writes of the fast one.
    - `slow_read`, `slow_write`: of the slow one.
    """

    fast: float
    slow_read: float
    slow_write: float


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What a segment does, apart from where its values are.

    - `seconds`: of arithmetic and launches, if memory took no time.
    - `reads`, `writes`: bytes by tensor, as positions in `Problem.tensors`.
    - `others`: bytes read and written of what is never slow: arguments, results, and
        values too small to decide about.
    """

    seconds: float
    reads: Mapping[int, int]
    writes: Mapping[int, int]
    others: int = 0

    def time(self, memories: Memories, slow: Collection[int] = ()) -> float:
        """Seconds with some of its tensors in slow memory."""
        into = sum(n for t, n in self.reads.items() if t in slow)
        out = sum(n for t, n in self.writes.items() if t in slow)
        fast = self.others + sum((*self.reads.values(), *self.writes.values()))
        traffic = (fast - into - out) / memories.fast
        traffic += into / memories.slow_read + out / memories.slow_write
        return max(self.seconds, traffic)
