"""The routes of tensors through AutoTM's networks, and what they take together.

Nothing is solved here. What routes take adds up, per segment. So the best route of one
tensor beside those of all others is a shortest path: over the gadgets of each gap, and
then over the gaps.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

from .checker import replay
from .one_engine import one_engine
from .problem import Problem, Tensor
from .schedule import Schedule
from .trips import Gap, Route, Trip, copies_of, routes_of


class Routes:
    """A schedule that can be changed one route at a time.

    - `by_tensor`: by position of a tensor that has routes to choose from, the one that
        it takes. What others do stays as it is.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: where to start.
    - `reach`: how many segments from a touch a copy may run beside.
    """

    def __init__(self, problem: Problem, schedule: Schedule, reach: int):
        self.problem = problem
        self.by_tensor: dict[int, Route] = {}
        self._gaps: dict[int, tuple[Gap, ...]] = {}
        self._cuts: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        found = routes_of(problem, schedule, reach)
        free = {problem.tensors[index].value for index in found}
        self._rest = dataclasses.replace(
            schedule,
            stores=tuple(s for s in schedule.stores if s.value not in free),
            fetches=tuple(f for f in schedule.fetches if f.value not in free),
        )
        state = replay(problem, self._rest)
        self._compute = state.compute
        self._beside, self._waits = one_engine(problem, self._rest, state)
        self._device, self._host = state.device.copy(), state.host.copy()
        # As the checker has it.
        self._limit = problem.device_limit * (1 + 1e-9) + 1
        most = state.host_peak + sum(problem.tensors[i].nbytes for i in found)
        self._is_host_tight = most > problem.host_limit
        # Where all that could be away fits, nothing has to be.
        over = self._device > self._limit
        for index, (gaps, route) in found.items():
            some = [
                (gap, trip)
                for gap, trip in zip(gaps, route, strict=True)
                if trip is not None or over[gap.a + 1 : gap.b].any()
            ]
            if some:
                self._gaps[index] = tuple(gap for gap, _ in some)
                cuts = np.array([(gap.a + 1, gap.b) for gap, _ in some])
                self._cuts[index] = cuts[:, 0], cuts[:, 1]
                self.by_tensor[index] = (None,) * len(some)
                self.change(index, tuple(trip for _, trip in some))

    def copy(self) -> Routes:
        """The same, to be changed by itself."""
        other = copy.copy(self)
        other.by_tensor = dict(self.by_tensor)
        other._beside, other._device = self._beside.copy(), self._device.copy()
        other._host = self._host.copy()
        return other

    def seconds(self) -> float:
        """Of the step, as the asynchronous program counts them."""
        return float(np.maximum(self._compute, self._beside).sum()) + self._waits

    def over(self) -> np.ndarray:
        """Device bytes beyond the limit, per segment; negative where there is room."""
        return self._device - self._limit

    def is_over(self, index: int) -> bool:
        """Whether the limit is broken in a gap of a tensor."""
        spans = (self._device[gap.a + 1 : gap.b] for gap in self._gaps[index])
        return any((span > self._limit).any() for span in spans)

    def held(self, index: int, until: np.ndarray) -> float:
        """What is added up over the segments of the gaps of a tensor.

        **Arguments:**

        - `index`: its position.
        - `until`: the sum over the segments before each cut.

        **Returns:**

        The sum over all gaps.
        """
        first, end = self._cuts[index]
        return float((until[end] - until[first]).sum())

    def change(self, index: int, route: Route) -> float:
        """Takes another route. Returns the seconds that the step gets longer by."""
        tensor, link = self.problem.tensors[index], self.problem.link
        old, self.by_tensor[index] = self.by_tensor[index], route
        seconds = 0.0
        for trips, sign in ((old, -1), (route, 1)):
            gaps = zip(self._gaps[index], trips, strict=True)
            for gap, trip in gaps if any(trips) else ():
                if trip is None:
                    continue
                out = gap.a if trip.out is None else trip.out
                self._device[out + 1 : trip.into] -= sign * tensor.nbytes
                if trip.out is not None:
                    # Its place is kept to the end, as in the columns of the program.
                    first = max(out, gap.a + 1)
                    self._host[first : tensor.touches[-1] + 1] += sign * tensor.nbytes
                    at = None if out == gap.a else out
                    seconds += self._copy(tensor, at, link.d2h, sign)
                at = None if trip.into == gap.b else trip.into
                seconds += self._copy(tensor, at, link.h2d, sign)
        return seconds

    def _copy(
        self, tensor: Tensor, at: int | None, bandwidth: float, sign: int
    ) -> float:
        """Adds a copy beside a segment, or alone, or takes it out again."""
        link, times = self.problem.link, sign * tensor.times
        if at is None:
            waits = times * link.alone(tensor.nbytes, bandwidth)
            self._waits += waits
            return waits
        waits = times * link.delay(tensor.nbytes, bandwidth)
        self._waits += waits
        before = max(self._compute[at], self._beside[at])
        self._beside[at] += times * tensor.nbytes / bandwidth
        return waits + float(max(self._compute[at], self._beside[at]) - before)

    def saved(self, index: int) -> float:
        """Seconds that the step would get shorter by if a tensor stayed."""
        route = self.by_tensor[index]
        seconds = self.change(index, (None,) * len(route))
        self.change(index, route)
        return -seconds

    def settle(self, index: int, prices: np.ndarray | None = None) -> bool:
        """Takes the best route of a tensor beside those of all others.

        **Arguments:**

        - `index`: its position.
        - `prices`: seconds for each byte on the device, added up over the segments
            before each cut, in the place of the limit. Without them the limit is kept,
            and the route that there is, too, if none is faster.

        **Returns:**

        Whether it takes another route now.
        """
        old = self.by_tensor[index]
        stay = (None,) * len(old)
        seconds = self.change(index, stay)
        new = stay if self._may_stay(index, prices) else self._best(index, prices)
        if new is not None:
            seconds += self.change(index, new)
        if new is None or (prices is None and seconds >= 0):
            self.change(index, old)
            return False
        return new != old

    def _may_stay(self, index: int, prices: np.ndarray | None) -> bool:
        """Whether nothing can be better than that a tensor stays, at first sight."""
        if prices is None:
            return not self.is_over(index)
        link, tensor = self.problem.link, self.problem.tensors[index]
        price = self.held(index, prices)
        least = sum(link.delay(tensor.nbytes, way) for way in (link.d2h, link.h2d))
        return bool(tensor.nbytes * price <= tensor.times * least)

    def _best(self, index: int, prices: np.ndarray | None) -> Route | None:
        """The best route of a tensor that stays now; `None` if none keeps the limit."""
        tensor = self.problem.tensors[index]
        # The least so far without and with a copy on the host. The latter came with one
        # or without, by a trip or not: by gap, both.
        fresh, clean = 0.0, np.inf
        came: list[tuple[bool, Trip | None]] = []
        for gap in self._gaps[index]:
            until, since = self._held(gap, tensor, prices)
            out, into = self._copies(gap, tensor, until, since)
            # The latest read of the cheapest after the earliest write: so it is on the
            # device for the shortest time.
            both = into[1:] + np.minimum.accumulate(out)[:-1]
            again, last = _latest(into), _latest(both)
            stays = float(until[-1])
            least, had, trip = min(
                (clean + stays, True, None),
                (clean + float(into[again]), True, Trip(None, gap.at(again))),
                (
                    fresh + float(both[last]),
                    False,
                    Trip(gap.at(int(out[: last + 1].argmin())), gap.at(last + 1)),
                ),
                key=lambda way: way[0],
            )
            came.append((had, trip))
            fresh, clean = fresh + stays, least
        if min(fresh, clean) == np.inf:
            return None
        route: list[Trip | None] = []
        has_copy = clean < fresh
        for had, trip in reversed(came):
            route.append(trip if has_copy else None)
            has_copy = has_copy and had
        return tuple(reversed(route))

    def _held(
        self, gap: Gap, tensor: Tensor, prices: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """By cut in a gap, what it costs to be on the device until and since then."""
        if prices is not None:
            until = tensor.nbytes * (prices[gap.a + 1 : gap.b + 1] - prices[gap.a + 1])
            return until, until[-1] - until
        over = self._device[gap.a + 1 : gap.b] > self._limit
        count = np.concatenate([[0], np.cumsum(over)])
        until = np.where(count > 0, np.inf, 0.0)
        return until, np.where(count < count[-1], np.inf, 0.0)

    def _copies(
        self, gap: Gap, tensor: Tensor, until: np.ndarray, since: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """By gadget of a gap, what it costs to leave there, and to come back."""
        link, nbytes, times = self.problem.link, tensor.nbytes, tensor.times
        ways = (link.d2h, link.h2d)
        seconds = np.array([[times * nbytes / bandwidth] for bandwidth in ways])
        delays = np.array([[times * link.delay(nbytes, way)] for way in ways])
        compute, beside = self._compute[gap.between], self._beside[gap.between]
        longer = np.maximum(compute, beside + seconds) - np.maximum(compute, beside)
        costs = np.full((2, gap.between.size + 2), np.inf)
        costs[:, 1:-1] = longer + delays
        out, into = costs
        out[0] = times * link.alone(nbytes, link.d2h)
        into[-1] = times * link.alone(nbytes, link.h2d)
        out[1:-1] += until[gap.number + 1]
        into[1:-1] += since[gap.number]
        if self._is_host_tight:
            taken = self._host[gap.a + 1 : tensor.touches[-1] + 1].max()
            if taken + nbytes > self.problem.host_limit:
                out[:] = np.inf
        return out, into

    def schedule(self) -> Schedule:
        """The schedule of all routes."""
        stores, fetches = list(self._rest.stores), list(self._rest.fetches)
        for index, route in self.by_tensor.items():
            written, read = copies_of(self.problem.tensors[index], route)
            stores += written
            fetches += read
        return dataclasses.replace(
            self._rest, stores=tuple(sorted(stores)), fetches=tuple(sorted(fetches))
        )


def _latest(costs: np.ndarray) -> int:
    """The last position of the least."""
    return costs.size - 1 - int(costs[::-1].argmin())
