"""All placements of a tiny problem, written down from what the words mean.

Nothing here knows the networks of the programs, or the checker: a tensor's ways through
the step are enumerated gap by gap, each with its bytes and seconds per segment, and the
ways of all tensors are combined.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from autotm_jax.solve import Formulation, Problem, Tensor


# How far from a touch the asynchronous program looks for a segment to move beside.
REACH = 15


@dataclasses.dataclass(frozen=True)
class Way:
    """One tensor's way: bytes per segment in each lane, and what else it asks for."""

    device: np.ndarray
    host: np.ndarray
    out: np.ndarray
    into: np.ndarray
    alone: float = 0.0  # seconds that everything waits
    again: tuple[int, ...] = ()
    streams: tuple[int, ...] = ()
    there: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class _State:
    way: Way
    is_here: bool
    has_copy: bool


@dataclasses.dataclass(frozen=True)
class Placements:
    """The makespans (seconds) and device peaks (bytes) of all placements that break no
    rule but perhaps the device limit."""

    seconds: np.ndarray
    peaks: np.ndarray

    def best(self, limit: float) -> float:
        """The least seconds within a device limit; infinity if there is no plan."""
        return float(self.seconds[self.peaks <= limit].min(initial=np.inf))

    @property
    def least(self) -> float:
        """The least device bytes."""
        return float(self.peaks.min(initial=np.inf))


class _Ways:
    def __init__(self, problem: Problem, index: int, formulation: Formulation):
        self.problem, self.index, self.formulation = problem, index, formulation
        self.tensor: Tensor = problem.tensors[index]
        self.is_joint = formulation is Formulation.JOINT
        optional = self.tensor.optional if self.is_joint else ()
        self.uses = sorted({*self.tensor.touches, *optional})
        self.nothing = np.zeros(problem.segments)
        self.times = self.tensor.times
        closed = self.tensor.closed
        self.shut = {k for first, end in closed for k in range(first + 1, end)}

    def all(self) -> Iterator[Way]:
        first = self.tensor.touches[0]
        empty = Way(*(self.nothing for _ in range(4)))
        here = self._hold(empty, first, first + 1, first)
        yield from self._from(0, _State(here, True, False))
        if self.tensor.movable:
            there = self._stream(empty, first)
            yield from self._from(0, _State(there, False, True))

    def _hold(self, way: Way, begin: int, end: int, use: int | None) -> Way:
        device = way.device.copy()
        device[begin:end] += self.tensor.nbytes
        there = way.there | ({use} if use is not None else set())
        return dataclasses.replace(way, device=device, there=there)

    def _kept(self, way: Way, begin: int, end: int) -> Way:
        host = way.host.copy()
        host[begin:end] = self.tensor.nbytes
        return dataclasses.replace(way, host=host)

    def _stream(self, way: Way, at: int) -> Way:
        way = self._kept(way, at, at + 1)
        return dataclasses.replace(way, streams=(*way.streams, at))

    def _copy(self, way: Way, lane: str, begin: int, end: int) -> Way:
        link = self.problem.link
        bandwidth = link.d2h if lane == "out" else link.h2d
        nbytes = self.tensor.nbytes
        alone = way.alone + self.times * link.latency
        nbytes *= self.times
        if begin == end:
            return dataclasses.replace(way, alone=alone + nbytes / bandwidth)
        seconds = np.array(self.problem.compute[begin:end])
        rate = getattr(way, lane).copy()
        rate[begin:end] += nbytes * seconds / seconds.sum()
        return dataclasses.replace(way, alone=alone, **{lane: rate})

    def _from(self, i: int, state: _State) -> Iterator[Way]:
        """Every end of the way from use `i`, where the tensor is as `state` says."""
        a = self.uses[i]
        later = self.uses[i + 1 :]
        stop = next((b for b in later if b in self.tensor.touches), None)
        if stop is None:
            yield state.way
        if not later:
            return
        if state.is_here:
            way = self._hold(state.way, a + 1, later[0] + 1, later[0])
            # A copy that is kept for later takes its place on the host.
            if state.has_copy:
                way = self._kept(way, a + 1, later[0] + 1)
            yield from self._from(i + 1, _State(way, True, state.has_copy))
        if a not in self.tensor.touches:
            return
        for b in later[: later.index(stop) + 1] if stop is not None else later:
            for ended in self._over(state, a, b):
                yield from self._from(self.uses.index(b), ended)

    def _over(self, state: _State, a: int, b: int) -> Iterator[_State]:
        """Away after segment `a`; back, or streamed, at `b`."""
        recipe = self.tensor.recipe
        is_fresh = state.is_here and not state.has_copy
        if self.is_joint and is_fresh and recipe is not None and b in recipe.seconds:
            yield _State(self._made_again(state.way, b), True, False)
        if not self.tensor.movable:
            return
        stores: list[tuple[Way, int]] = [(state.way, a + 1)]
        if state.is_here and not state.has_copy:
            stores = []
            for begin, end in self._store_windows(a, b):
                way = self._hold(state.way, a + 1, end, None)
                stores.append((self._copy(way, "out", begin, end), end))
        for way, end in stores:
            if b in self.tensor.touches and self._is_listed(b):
                kept = self._kept(way, a + 1, b)
                yield _State(self._stream(kept, b), False, True)
            for begin, done in self._fetch_windows(end, b):
                back = self._hold(way, begin, b + 1, b)
                back = self._kept(back, a + 1, b + 1)
                yield _State(self._copy(back, "into", begin, done), True, True)

    def _made_again(self, way: Way, at: int) -> Way:
        recipe = self.tensor.recipe
        # A kernel that it is fused into does not hold it.
        end = at if recipe is not None and at in recipe.dissolved else at + 1
        way = self._hold(way, at, end, at)
        return dataclasses.replace(way, again=(*way.again, at))

    def _is_listed(self, at: int) -> bool:
        known = self.problem.configurations.get(at, ())
        return any(self.index in c.host for c in known)

    def _store_windows(self, a: int, b: int) -> Iterator[tuple[int, int]]:
        if self.formulation is Formulation.STATIC:
            return
        yield a + 1, a + 1
        yield from self._windows(a + 1, b)

    def _fetch_windows(self, first: int, b: int) -> Iterator[tuple[int, int]]:
        if self.formulation is Formulation.STATIC or first > b:
            return
        yield b, b
        yield from self._windows(first, b)

    def _windows(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        if self.formulation is Formulation.SYNCHRONOUS:
            return
        for begin, done in itertools.combinations(range(first, end + 1), 2):
            if {begin, done} & self.shut:
                continue
            near = any(abs(begin - k) <= REACH for k in self.tensor.touches)
            if self.is_joint or (done == begin + 1 and near):
                yield begin, done


class _CrossingWays(_Ways):
    """Of a tensor that one loop makes and others read: one iteration stands for all.

    Once it is stacked, on either side, all iterations' bytes are there for the span of
    all these loops. Copies run beside segments of the loop that makes it, or of one
    that reads it, right up to the use or to the end of the iteration. Once it has been
    sliced from a stack, it is sliced in each of several loops that read it.
    """

    def __init__(self, problem: Problem, index: int):
        super().__init__(problem, index, Formulation.JOINT)
        assert self.tensor.crossing is not None
        self.crossing = self.tensor.crossing
        self.first, self.end = self.crossing.read[0], self.crossing.span[1]
        self.reads = [k for k in self.uses if k >= self.first]

    def all(self) -> Iterator[Way]:
        recipe = self.tensor.recipe
        made = [k for k in self.uses if k < self.first]
        last = max(k for k in made if k in self.tensor.touches)
        for until in (k for k in made if k >= last):
            way = Way(*(self.nothing for _ in range(4)))
            way = self._hold(way, made[0], until + 1, made[0])
            there = frozenset(k for k in made if k <= until)
            way = dataclasses.replace(way, there=there)
            if last == self.tensor.touches[-1]:
                yield way
            kept = self._stacked(way, "device")
            kept = dataclasses.replace(kept, alone=kept.alone + self.crossing.seconds)
            sliced = "sliced" if self.crossing.later else "fresh"
            for use in self._next(last):
                yield from self._here(self._hold(kept, use, use + 1, use), use, sliced)
                if recipe is not None and use in recipe.seconds:
                    yield from self._here(self._made_again(way, use), use, "fresh")
            if self.tensor.movable:
                for gone in self._left(way, made[0], last, until):
                    yield from self._back(gone, last)
                    yield from self._ahead(gone, last, False)
                if self.crossing.is_mirrored:
                    for gone in self._left_late(way, until):
                        yield from self._ahead(gone, last, True)

    def _stacked(self, way: Way, lane: str) -> Way:
        rows = getattr(way, lane).copy()
        each = self.tensor.nbytes
        rows[self.crossing.made[0] : self.end] += self.crossing.count * each
        return dataclasses.replace(way, **{lane: rows})

    def _next(self, a: int) -> list[int]:
        """Uses after segment `a`, up to the next that the program makes."""
        later = [b for b in self.reads if b > a]
        stops = [b for b in later if b in self.tensor.touches]
        return [b for b in later if b <= stops[0]] if stops else later

    def _left(self, way: Way, born: int, last: int, until: int) -> Iterator[Way]:
        """Stored, from when it is made or when the program has read it last."""
        ends = range(born + 1, self.crossing.made[1] + 1)
        windows = {(s, e) for s in (born + 1, last + 1) for e in ends if s < e}
        for begin, done in sorted({*windows, (last + 1, last + 1)}):
            held = self._hold(way, until + 1, max(until + 1, done), None)
            yield self._copy(self._stacked(held, "host"), "out", begin, done)

    def _left_late(self, way: Way, until: int) -> Iterator[Way]:
        """Stored by the next iteration; what the last one made waits to be read."""
        born, end = self.crossing.made
        for done in range(born + 1, end + 1):
            held = self._hold(way, until + 1, self.first, None)
            held = self._hold(held, born, done, None)
            yield self._copy(self._stacked(held, "host"), "out", born, done)

    def _here(self, way: Way, at: int, place: str) -> Iterator[Way]:
        """Every end of the way from use `at`, where it is on the device."""
        crosses, recipe = self.tensor.crosses, self.tensor.recipe
        if at >= self.tensor.touches[-1]:
            yield way
        later = [b for b in self.reads if b > at]
        if later and not crosses(at, later[0]):
            stays = self._hold(way, at + 1, later[0] + 1, later[0])
            yield from self._here(stays, later[0], place)
        if at not in self.tensor.touches:
            return
        if place == "copied":
            yield from self._back(way, at)
            yield from self._ahead(way, at, False)
        for use in self._next(at):
            if place == "sliced" and crosses(at, use):
                yield from self._here(self._hold(way, use, use + 1, use), use, place)
            if place == "fresh" and recipe is not None and use in recipe.seconds:
                yield from self._here(self._made_again(way, use), use, place)

    def _back(self, way: Way, a: int) -> Iterator[Way]:
        """Fetched after segment `a` for a use."""
        for use in self._next(a):
            first, _ = self.crossing.loop_at(use)
            for begin in range(max(first, a + 1), use + 1):
                back = self._hold(way, begin, use + 1, use)
                back = self._copy(back, "into", begin, use)
                yield from self._here(back, use, "copied")

    def _ahead(self, way: Way, last: int, is_late: bool) -> Iterator[Way]:
        """Fetched while one iteration runs, for the next one; first before the loop.

        What was to be stored late is there for the first iteration.
        """
        link, loops = self.problem.link, self.times / self.crossing.count
        before = loops * (link.latency + self.tensor.nbytes / link.h2d)
        before = 0.0 if is_late else before
        for use in self._next(last):
            first, end = self.crossing.loop_at(use)
            for begin in range(first, end) if self.tensor.crosses(last, use) else ():
                back = self._hold(way, first, use + 1, use)
                back = self._hold(back, begin, end, None)
                back = self._copy(back, "into", begin, end)
                back = dataclasses.replace(back, alone=back.alone + before)
                yield from self._here(back, use, "fresh" if is_late else "copied")


class _CarriedWays(_Ways):
    """Of a leaf of the state: on the device all the time, or on the host and fetched.

    Then what takes its place is stored, and there is one of it on the host all along.
    """

    def __init__(self, problem: Problem, index: int):
        super().__init__(problem, index, Formulation.JOINT)
        assert self.tensor.carried is not None
        self.made = self.tensor.carried.made

    def all(self) -> Iterator[Way]:
        count, nothing = self.problem.segments, Way(*(self.nothing for _ in range(4)))
        resident = self._hold(nothing, 0, count, None)
        yield dataclasses.replace(resident, there=frozenset(self.uses))
        if self.tensor.movable:
            kept = self._kept(nothing, 0, count)
            for way in self._after(-1, kept):
                yield from self._replaced(way)

    def _after(self, a: int, way: Way) -> Iterator[Way]:
        """From segment `a`, when it is not on the device, until it is read no more."""
        if a >= self.tensor.touches[-1]:
            yield way
            return
        for use in self._next(a):
            for begin, done in [(use, use), *self._windows(a + 1, use)]:
                back = self._hold(way, begin, use + 1, use)
                yield from self._at(use, self._copy(back, "into", begin, done))

    def _at(self, use: int, way: Way) -> Iterator[Way]:
        """From a use, when it is on the device."""
        yield from self._after(use, way)
        later = [b for b in self.uses if b > use]
        if later:
            stays = self._hold(way, use + 1, later[0] + 1, later[0])
            yield from self._at(later[0], stays)

    def _next(self, a: int) -> list[int]:
        later = [b for b in self.uses if b > a]
        stop = min(b for b in later if b in self.tensor.touches)
        return [b for b in later if b <= stop]

    def _replaced(self, way: Way) -> Iterator[Way]:
        if not self.made:
            yield way
            return
        after, count = self.made[-1] + 1, self.problem.segments
        for begin, done in [(after, after), *self._windows(after, count)]:
            held = self._hold(way, self.made[0], done, None)
            yield self._copy(held, "out", begin, done)


def _ways(problem: Problem, index: int, formulation: Formulation) -> list[Way]:
    if problem.tensors[index].carried is not None:
        assert formulation is Formulation.JOINT
        return list(_CarriedWays(problem, index).all())
    if problem.tensors[index].crossing is None:
        return list(_Ways(problem, index, formulation).all())
    assert formulation is Formulation.JOINT
    return list(_CrossingWays(problem, index).all())


def placements(problem: Problem, formulation: Formulation) -> Placements:
    """All placements that break no rule but perhaps the device limit."""
    choices = []
    for index in range(len(problem.tensors)):
        ways = _ways(problem, index, formulation)
        if formulation is Formulation.STATIC:
            # One place for life: streamed at every touch, or at none.
            touches = len(problem.tensors[index].touches)
            ways = [w for w in ways if len(w.streams) in (0, touches)]
        choices.append(ways)
    totals = [np.zeros((1, problem.segments)) for _ in range(4)]
    alone = np.zeros(1)
    picked = np.zeros((1, 0), dtype=int)
    for ways in choices:
        lanes = ([w.device for w in ways], [w.host for w in ways])
        lanes = (*lanes, [w.out for w in ways], [w.into for w in ways])
        totals = [
            (total[:, None] + np.array(lane)[None]).reshape(-1, problem.segments)
            for total, lane in zip(totals, lanes, strict=True)
        ]
        alone = (alone[:, None] + np.array([w.alone for w in ways])[None]).ravel()
        number = np.tile(np.arange(len(ways)), len(picked))
        picked = np.column_stack([np.repeat(picked, len(ways), axis=0), number])
    return _score(problem, formulation, choices, picked, totals, alone)


def _score(
    problem: Problem,
    formulation: Formulation,
    choices: list[list[Way]],
    picked: np.ndarray,
    totals: list[np.ndarray],
    alone: np.ndarray,
) -> Placements:
    device, host, out, into = totals
    device = device + problem.resident
    count = len(picked)
    sound = (host <= problem.host_limit).all(axis=1)
    compute = np.tile(np.array(problem.compute), (count, 1))
    workspace = np.tile(np.array(problem.workspace, dtype=float), (count, 1))
    before = np.full(device.shape, -np.inf)
    born = np.zeros(device.shape)
    runs: dict[tuple[int | str, int], np.ndarray] = {}
    for index, tensor in enumerate(problem.tensors):
        ways, column = choices[index], picked[:, index]
        here = np.array([tensor.touches[0] not in w.streams for w in ways])
        if tensor.carried is None:
            born[:, tensor.touches[0]] += tensor.nbytes * here[column]
        recipe = tensor.recipe
        if recipe is None:
            continue
        for use, seconds in recipe.seconds.items():
            again = np.array([use in w.again for w in ways])[column]
            key = index if recipe.run is None else f"run {recipe.run}", use
            before_it = runs.get(key, np.zeros(count, dtype=bool))
            compute[:, use] += seconds * (again & ~before_it)
            runs[key] = again | before_it
            extra = np.where(again, recipe.workspace, -np.inf)
            before[:, use] = np.maximum(before[:, use], extra)
            for root in recipe.roots:
                there = np.array([use in w.there for w in choices[root]])
                sound &= ~again | there[picked[:, root]]
    for k in range(problem.segments):
        mask = np.zeros(count, dtype=int)
        for index in range(len(problem.tensors)):
            streamed = np.array([k in w.streams for w in choices[index]])
            mask += streamed[picked[:, index]] << index
        seconds, staging = _configured(problem, k)
        sound &= np.isfinite(seconds[mask])
        compute[:, k] += seconds[mask]
        workspace[:, k] += staging[mask]
    link = problem.link
    copies = [out / link.d2h, into / link.h2d]
    if formulation is Formulation.JOINT:
        copies.append((out + into) / link.duplex)
    else:
        copies = [copies[0] + copies[1]]
    seconds, peaks = [], []
    for time, space in _variants(problem):
        times = np.maximum.reduce([compute + time, *copies]).sum(axis=1) + alone
        peak = np.maximum(device + workspace + space, device - born + before)
        seconds.append(times[sound])
        peaks.append(peak.max(axis=1)[sound])
    return Placements(np.concatenate(seconds), np.concatenate(peaks))


def _configured(problem: Problem, k: int) -> tuple[np.ndarray, np.ndarray]:
    size = 2 ** len(problem.tensors)
    seconds, staging = np.full(size, np.inf), np.zeros(size)
    seconds[0] = 0.0
    for configuration in problem.configurations.get(k, ()):
        mask = sum(1 << i for i in configuration.host)
        seconds[mask], staging[mask] = configuration.seconds, configuration.staging
    return seconds, staging


def _variants(problem: Problem) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What every choice of variants adds to seconds and workspace, per segment."""
    known = [[None, *problem.variants.get(k, ())] for k in range(problem.segments)]
    for chosen in itertools.product(*known):
        time, space = np.zeros((2, problem.segments))
        for k, variant in enumerate(chosen):
            if variant is not None:
                time[k] = variant.seconds - problem.compute[k]
                space[k] = variant.workspace - problem.workspace[k]
        yield time, space
