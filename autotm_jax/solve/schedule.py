"""What a plan does, segment by segment."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, order=True)
class Store:
    """A copy of a value to the host.

    It starts when segment `after` has finished, and is done when segment `done`
    begins.
    """

    value: int
    after: int
    done: int


@dataclasses.dataclass(frozen=True, order=True)
class Fetch:
    """A copy of a value back to the device.

    It starts when segment `start` begins, and is done when segment `use` begins.
    """

    value: int
    start: int
    use: int


@dataclasses.dataclass(frozen=True, order=True)
class Recompute:
    """A value computed again, just before segment `use`."""

    value: int
    use: int


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Everything a plan adds to a program. An empty schedule only cuts."""

    stores: tuple[Store, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    recomputes: tuple[Recompute, ...] = ()
