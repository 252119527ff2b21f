"""What a plan does, segment by segment."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, order=True)
class Store:
    """A copy of a value to the host.

    - `after`: the segment that touches it last before the copy. If it is not on the
        device at its next use, it leaves when the copy is done.
    - `done`: the segment at whose beginning the copy is finished.
    - `start`: the segment at whose beginning it starts; -1 for the one following
        `after`. With nothing between start and end, everything waits for the copy. Not
        after `after`: what one iteration of a loop makes, the next one stores.
    """

    value: int
    after: int
    done: int
    start: int = -1

    @property
    def is_late(self) -> bool:
        """Whether it is done in the next iteration of a loop."""
        return 0 <= self.start <= self.after

    @property
    def window(self) -> tuple[int, int]:
        """The segments `[first, end)` that run beside the copy."""
        return (self.after + 1 if self.start < 0 else self.start), self.done


@dataclasses.dataclass(frozen=True, order=True)
class Fetch:
    """A copy of a value back to the device.

    - `start`: the segment at whose beginning it starts.
    - `use`: the segment that wants the value.
    - `done`: the segment at whose beginning the copy is finished; -1 for `use`. With
        nothing between start and end, everything waits for the copy. After `use`: what
        is fetched in one iteration of a loop is for the next.
    """

    value: int
    start: int
    use: int
    done: int = -1

    @property
    def is_ahead(self) -> bool:
        """Whether it is for the next iteration of a loop."""
        return self.done > self.use

    @property
    def window(self) -> tuple[int, int]:
        """The segments `[first, end)` that run beside the copy."""
        return self.start, (self.use if self.done < 0 else self.done)


@dataclasses.dataclass(frozen=True, order=True)
class Recompute:
    """A value computed again, just before segment `use`."""

    value: int
    use: int


@dataclasses.dataclass(frozen=True, order=True)
class Stream:
    """A value that is on the host while segment `at` reads or makes it.

    Where kernels read device memory only, the segment fetches it first, or stores it
    when it is done.
    """

    value: int
    at: int


@dataclasses.dataclass(frozen=True, order=True)
class Pick:
    """A segment that runs by another of its variants, numbered from 1."""

    segment: int
    variant: int


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Everything a plan adds to a program. An empty schedule only cuts."""

    stores: tuple[Store, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    recomputes: tuple[Recompute, ...] = ()
    streams: tuple[Stream, ...] = ()
    picks: tuple[Pick, ...] = ()

    @property
    def moved(self) -> frozenset[int]:
        """Values that are on the host at some time."""
        return frozenset(item.value for item in (*self.stores, *self.streams))

    @property
    def copies(self) -> int:
        """How many copies between the memories it asks for."""
        return len(self.stores) + len(self.fetches) + len(self.streams)
