"""Where AutoTM's networks let a tensor go, as trips over its gaps.

A tensor's *route* says for each of its gaps, from one touch to the next, whether it
stays on the device, or at which gadgets it leaves and comes back.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .problem import Problem, Tensor
from .schedule import Fetch, Schedule, Store
from .tensorgraph import fetch_at, gadgets, store_at


@dataclasses.dataclass(frozen=True)
class Trip:
    """Away over a gap.

    - `out`: the segment of the gadget at which it is written to the host; `None` if
        there is a copy already, so that it is dropped.
    - `into`: the segment of the gadget at which it is read.
    """

    out: int | None
    into: int


Route = tuple[Trip | None, ...]
"""By gap, the trip; `None` where it stays."""


@dataclasses.dataclass(frozen=True, eq=False)
class Gap:
    """From touch `a` to touch `b`, and gadgets between where copies run beside.

    - `between`: their segments.
    - `number`: of these, as counted from the first one in the gap.
    """

    a: int
    b: int
    between: np.ndarray
    number: np.ndarray

    def at(self, number: int) -> int:
        """The segment of a gadget: the first one is that of `a`, the last of `b`."""
        if number == 0:
            return self.a
        return int(self.between[number - 1]) if number <= len(self.between) else self.b


def copies_of(tensor: Tensor, route: Route) -> tuple[list[Store], list[Fetch]]:
    """What a tensor copies on a route, in order."""
    trips = [trip for trip in route if trip is not None]
    stores = [store_at(tensor, trip.out) for trip in trips if trip.out is not None]
    return stores, [fetch_at(tensor, trip.into) for trip in trips]


def routes_of(
    problem: Problem, schedule: Schedule, reach: int
) -> dict[int, tuple[tuple[Gap, ...], Route]]:
    """The routes that a schedule has for tensors.

    **Arguments:**

    - `problem`, `schedule`: whose tensors, and what it does with them.
    - `reach`: how many segments from a touch a copy may run beside.

    **Returns:**

    By position of a tensor its gaps, and the route that it takes. Tensors are left out
    that have no gap, that are streamed or computed again, and whose copies no network
    has.
    """
    stores: dict[int, list[Store]] = defaultdict(list)
    fetches: dict[int, list[Fetch]] = defaultdict(list)
    for store in schedule.stores:
        stores[store.value].append(store)
    for fetch in schedule.fetches:
        fetches[fetch.value].append(fetch)
    others = {item.value for item in (*schedule.streams, *schedule.recomputes)}
    found: dict[int, tuple[tuple[Gap, ...], Route]] = {}
    for index, tensor in enumerate(problem.tensors):
        gaps = _gaps_of(problem, tensor, reach)
        if not gaps or tensor.value in others:
            continue
        route = _read(tensor, gaps, stores[tensor.value], fetches[tensor.value])
        if route is not None:
            found[index] = gaps, route
    return found


def _gaps_of(problem: Problem, tensor: Tensor, reach: int) -> tuple[Gap, ...]:
    # What loops, or other steps, have a part in has rules of its own.
    is_plain = tensor.carried is None and tensor.crossing is None and not tensor.closed
    if not is_plain or not tensor.movable:
        return ()
    # Beside a segment that takes no time, everything waits.
    beside = np.array(
        [
            gadget.at
            for gadget in gadgets(tensor, reach)
            if not gadget.is_touch and problem.compute[gadget.at] > 0
        ],
        dtype=int,
    )
    return tuple(
        Gap(a, b, between, between - (a + 1))
        for a, b in itertools.pairwise(tensor.touches)
        for between in [beside[(beside > a) & (beside < b)]]
        if b > a + 1
    )


def _read(
    tensor: Tensor,
    gaps: Sequence[Gap],
    stores: Sequence[Store],
    fetches: Sequence[Fetch],
) -> Route | None:
    """The route of which these are the copies, or `None` if there is none."""
    by_use = {fetch.use: fetch.window for fetch in fetches}
    windows = [store.window for store in stores]
    route: list[Trip | None] = []
    for gap in gaps:
        if gap.b not in by_use:
            route.append(None)
            continue
        out = None
        if windows and not any(route):
            first, end = windows[0]
            out = first if end > first else gap.a
        first, end = by_use[gap.b]
        trip = Trip(out, first if end > first else gap.b)
        known = {gap.a, gap.b, *gap.between.tolist()}
        is_known = trip.into in known and (out is None or (out in known))
        if not is_known or (gap.a if out is None else out) >= trip.into:
            return None
        route.append(trip)
    found = copies_of(tensor, tuple(route))
    return tuple(route) if found == (list(stores), list(fetches)) else None
