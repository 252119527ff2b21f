"""A schedule that can be changed one tensor at a time, with its score kept up to date.

The bytes and seconds of a schedule are sums over tensors of what each does by itself
(its footprint). Changing one tensor therefore takes what its old footprint was out of
the sums and puts the new one in, which is some hundred times faster than replaying the
whole schedule.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping

import numpy as np

from .footprint import Footprint, footprint
from .problem import Problem, Recipe, first_copy
from .schedule import Fetch, Recompute, Schedule, Store, Stream


# So many footprints are remembered: searches try the same ones again and again.
_REMEMBERED = 2**15


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a schedule does with one tensor.

    - `stores`, `fetches`: its copies.
    - `again`: segments before which it is computed again.
    - `streams`: segments that read or make it on the host.
    """

    stores: tuple[Store, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    again: tuple[int, ...] = ()
    streams: tuple[int, ...] = ()

    def with_copy(self, copy: Fetch | Store, other: Fetch | Store) -> Choice:
        """The same with another copy in the place of one of these."""
        if isinstance(other, Fetch):
            fetches = tuple(other if f == copy else f for f in self.fetches)
            return dataclasses.replace(self, fetches=fetches)
        stores = tuple(other if s == copy else s for s in self.stores)
        return dataclasses.replace(self, stores=stores)


class Ledger:
    """The running sums of a schedule on a problem.

    - `choices`: by tensor, what the schedule does with it.
    - `reads`: by tensor, how often each segment computes something again from it.
    - `clock`: seconds of compute before each segment, and of all of them.
    - `faults`: how many rules are broken, other than the limits.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: where to start.
    """

    def __init__(self, problem: Problem, schedule: Schedule):
        self.problem = problem
        count, tensors = problem.segments, problem.tensors
        self.choices = _choices(problem, schedule)
        self.picks = schedule.picks
        self.reads: list[Counter[int]] = [Counter() for _ in tensors]
        # Copies are spread over the segments as they run by themselves.
        self._spread = np.array(problem.compute)
        self.clock = np.concatenate([[0.0], np.cumsum(self._spread)])
        self._compute = self._spread.copy()
        self._workspace = np.array(problem.workspace, dtype=float)
        self._host, self._out, self._into, self._again = np.zeros((4, count))
        for pick in self.picks:
            variant = problem.variants[pick.segment][pick.variant - 1]
            self._compute[pick.segment] = variant.seconds
            self._workspace[pick.segment] = variant.workspace
            self._host[pick.segment] += variant.host
        self._born = np.zeros(count)
        for tensor in tensors:
            if tensor.maker is not None:
                self._born[tensor.maker] += tensor.nbytes
        self._device = problem.resident.copy()
        self._delay = 0.0
        self._runs: Counter[tuple[int, int]] = Counter()
        self.faults = 0
        # By segment, the workspace of each recomputation before it, and the largest.
        self._while_again: list[Counter[int]] = [Counter() for _ in range(count)]
        self._most_again = np.full(count, -np.inf)
        # By segment, the tensors that it finds or leaves on the host.
        self._streamed: list[frozenset[int]] = [frozenset() for _ in range(count)]
        self._prints: list[Footprint | None] = [None] * len(tensors)
        self._footprint = functools.lru_cache(_REMEMBERED)(self._walked)
        for index, choice in enumerate(self.choices):
            self._count(index, choice, 1)
        for index in range(len(tensors)):
            self._print(index)

    def change(self, changes: Mapping[int, Choice]) -> None:
        """Takes other choices for some tensors."""
        touched = set(changes)
        for index, choice in changes.items():
            old = self.choices[index]
            recipe = self.problem.tensors[index].recipe
            if recipe is not None and old.again != choice.again:
                touched.update(recipe.roots)
            self._count(index, old, -1)
            self._count(index, choice, 1)
            self.choices[index] = choice
        for index in touched:
            self._print(index)

    def become(self, schedule: Schedule) -> None:
        """Takes all choices of a schedule, which runs by the same variants."""
        choices = enumerate(_choices(self.problem, schedule))
        self.change({i: c for i, c in choices if c != self.choices[i]})

    def score(self, price: float = 100.0) -> float:
        """Seconds of the step, and a price for every rule that is broken.

        The price is in multiples of the step, for each fault and for each segment in
        which twice the limit is used.
        """
        return self.seconds() + price * self.excess() * float(self.clock[-1])

    def seconds(self) -> float:
        """The makespan of the step."""
        link = self.problem.link
        seconds = np.maximum.reduce(
            [
                self._compute + self._again,
                self._out / link.d2h,
                self._into / link.h2d,
                (self._out + self._into) / link.duplex,
            ]
        )
        return float(seconds.sum()) + self._delay

    def excess(self) -> float:
        """What breaks the rules: nothing, for a schedule that may be used."""
        problem = self.problem
        over = np.maximum(0.0, self.device() - problem.device_limit).sum()
        over = float(over) / max(1.0, problem.device_limit)
        host = max(0.0, self.host_peak() - problem.host_limit)
        return over + host / max(1.0, problem.host_limit) + self.faults

    def device(self) -> np.ndarray:
        """Device bytes per segment, also while something is computed again."""
        before = self._device - self._born + self._most_again
        return np.maximum(self._device + self._workspace, before)

    def footprints(self) -> list[Footprint]:
        """What each tensor does under the schedule."""
        return [found for found in self._prints if found is not None]

    def footprint_of(self, index: int) -> Footprint:
        """What one tensor does under the schedule."""
        found = self._prints[index]
        assert found is not None
        return found

    def host_peak(self) -> float:
        """The largest number of host bytes at any segment."""
        return float(self._host.max(initial=0.0))

    def schedule(self) -> Schedule:
        """The schedule that the choices make."""
        pairs = list(zip(self.problem.tensors, self.choices, strict=True))
        return Schedule(
            tuple(sorted(s for _, c in pairs for s in c.stores)),
            tuple(sorted(f for _, c in pairs for f in c.fetches)),
            tuple(sorted(Recompute(t.value, k) for t, c in pairs for k in c.again)),
            tuple(sorted(Stream(t.value, k) for t, c in pairs for k in c.streams)),
            self.picks,
        )

    def _stream(self, index: int, segment: int) -> None:
        # Takes a tensor in or out of what a segment streams.
        tensor = self.problem.tensors[index]
        if segment == tensor.maker:
            was_there = index not in self._streamed[segment]
            self._born[segment] += -tensor.nbytes if was_there else tensor.nbytes
        for sign in (-1, 1):
            host = self._streamed[segment]
            if host:
                found = self.problem.streamed(segment, host)
                if found is None:
                    self.faults += sign
                else:
                    self._again[segment] += sign * found.seconds
                    self._workspace[segment] += sign * found.staging
            if sign < 0:
                self._streamed[segment] = host ^ {index}

    def _count(self, index: int, choice: Choice, sign: int) -> None:
        for segment in choice.streams:
            self._stream(index, segment)
        recipe = self.problem.tensors[index].recipe
        if recipe is None:
            return
        for use in choice.again:
            if use not in recipe.seconds:
                self.faults += sign
                continue
            self._run(recipe, use, sign)
            extra = self._while_again[use]
            extra[recipe.workspace] += sign
            if not extra[recipe.workspace]:
                del extra[recipe.workspace]
            self._most_again[use] = max(extra, default=-np.inf)
            for root in recipe.roots:
                self.reads[root][use] += sign
                if not self.reads[root][use]:
                    del self.reads[root][use]

    def _run(self, recipe: Recipe, use: int, sign: int) -> None:
        if recipe.run is not None:
            # The first one that it makes brings it about, the last one ends it.
            self._runs[recipe.run, use] += sign
            if self._runs[recipe.run, use] != (1 if sign > 0 else 0):
                return
        self._again[use] += sign * recipe.seconds[use]

    def _print(self, index: int) -> None:
        old = self._prints[index]
        if old is not None:
            self._add(index, old, -1)
        new = self._footprint(index, self.choices[index], frozenset(self.reads[index]))
        self._prints[index] = new
        self._add(index, new, 1)

    def _walked(self, index: int, choice: Choice, reads: frozenset[int]) -> Footprint:
        copies = choice.stores, choice.fetches
        rest = choice.again, reads, *copies, choice.streams
        return footprint(self.problem.tensors[index], *rest)

    def _add(self, index: int, found: Footprint, sign: int) -> None:
        link, tensor = self.problem.link, self.problem.tensors[index]
        self.faults += sign * len(found.faults)
        for first, end in found.stays:
            self._device[first:end] += sign * tensor.nbytes
        if found.is_resident:
            self._device += sign * tensor.nbytes
        if found.stack is not None and tensor.crossing is not None:
            self._delay += sign * tensor.crossing.seconds
            self._device[slice(*found.stack)] += sign * tensor.stacked
        if found.host is not None:
            self._host[slice(*found.host)] += sign * tensor.stacked
        times = sign * tensor.times
        for lane, intervals, bandwidth in (
            (self._out, found.out, link.d2h),
            (self._into, found.into, link.h2d),
        ):
            for first, end in intervals:
                self._copy(lane, first, end, times * tensor.nbytes)
                seconds = link.delay if end > first else link.alone
                self._delay += times * seconds(tensor.nbytes, bandwidth)
        if tensor.crossing is not None:
            self._delay += sign * found.ahead * first_copy(tensor, link)

    def _copy(self, lane: np.ndarray, first: int, end: int, nbytes: int) -> None:
        if end <= first:
            return
        total = self.clock[end] - self.clock[first]
        if total > 0:
            lane[first:end] += nbytes * (self._spread[first:end] / total)
        else:
            lane[first:end] += nbytes / (end - first)


def _choices(problem: Problem, schedule: Schedule) -> list[Choice]:
    stores: dict[int, list[Store]] = {}
    fetches: dict[int, list[Fetch]] = {}
    again: dict[int, list[int]] = {}
    streams: dict[int, list[int]] = {}
    for stream in schedule.streams:
        streams.setdefault(stream.value, []).append(stream.at)
    for store in schedule.stores:
        stores.setdefault(store.value, []).append(store)
    for fetch in schedule.fetches:
        fetches.setdefault(fetch.value, []).append(fetch)
    for item in schedule.recomputes:
        again.setdefault(item.value, []).append(item.use)
    return [
        Choice(
            tuple(stores.get(t.value, ())),
            tuple(fetches.get(t.value, ())),
            tuple(again.get(t.value, ())),
            tuple(streams.get(t.value, ())),
        )
        for t in problem.tensors
    ]
