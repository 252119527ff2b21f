"""A memory that is handed out in ranges of addresses, and taken back."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Sequence

from ..solve import Problem


class Pool:
    """Free ranges of one memory, in the order of their addresses.

    !!! Example

        ```python
        pool = Pool(100)
        first = pool.take(60)  # 0
        pool.take(60)          # None: there are 40 left
        pool.give(first)
        ```

    **Arguments:**

    - `nbytes`: how large it is.
    - `best_fit`: whether the smallest range that is large enough is taken, rather than
        the first one.
    """

    def __init__(self, nbytes: int, best_fit: bool = True):
        self.best_fit = best_fit
        self._free = [(0, nbytes)] if nbytes > 0 else []
        self._taken: dict[int, int] = {}
        self.used = 0  # bytes

    def take(self, nbytes: int) -> int | None:
        """The address of a range of so many bytes; `None` if no range is large enough.

        **Arguments:**

        - `nbytes`: at least 1.
        """
        fitting = ((n, at) for at, n in self._free if n >= nbytes)
        if self.best_fit:
            chosen = min(fitting, default=None)
        else:
            chosen = next(fitting, None)
        if chosen is None:
            return None
        size, at = chosen
        place = bisect.bisect_left(self._free, (at, 0))
        rest = [(at + nbytes, size - nbytes)] if size > nbytes else []
        self._free[place : place + 1] = rest
        self._taken[at] = nbytes
        self.used += nbytes
        return at

    def give(self, at: int) -> None:
        """Takes a range back, and joins it with free ones beside it."""
        nbytes = self._taken.pop(at)
        self.used -= nbytes
        place = bisect.bisect_left(self._free, (at, 0))
        end = at + nbytes
        if place < len(self._free) and self._free[place][0] == end:
            end += self._free.pop(place)[1]
        if place > 0 and sum(self._free[place - 1]) == at:
            place -= 1
            at = self._free.pop(place)[0]
        self._free.insert(place, (at, end - at))


def addresses(problem: Problem, sizes: Sequence[int], pool: Pool) -> list[int | None]:
    """Where tensors are in a memory from which they are never moved.

    In each segment the results are placed before what it reads for the last time is
    freed.

    **Arguments:**

    - `problem`: whose tensors.
    - `sizes`: bytes that each of them takes.
    - `pool`: the memory.

    **Returns:**

    An address for each tensor; `None` if there was no range for it.
    """
    made: dict[int, list[int]] = defaultdict(list)
    freed: dict[int, list[int]] = defaultdict(list)
    for index, tensor in enumerate(problem.tensors):
        made[tensor.touches[0]].append(index)
        freed[tensor.touches[-1]].append(index)
    found: list[int | None] = [None] * len(sizes)
    for segment in range(problem.segments):
        for index in made[segment]:
            found[index] = pool.take(sizes[index])
        for index in freed[segment]:
            address = found[index]
            if address is not None:
                pool.give(address)
    return found
