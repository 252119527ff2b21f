"""A checker that does not trust the solver.

It replays a schedule on a problem, segment by segment, from the meaning of a schedule
alone: what is on the device, what is in flight, what is on the host, and how long
everything takes. It knows no network and no solver. What a single tensor does is read
by `footprint.py`, as in the local search.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from .footprint import Footprint, Interval, footprint
from .problem import Problem, Tensor, first_copy
from .schedule import Fetch, Pick, Schedule, Store


@dataclasses.dataclass(frozen=True)
class Replay:
    """What a schedule does on a problem.

    - `device`, `host`: bytes per segment; `device` is the largest of the segment
        itself and of what is computed again before it.
    - `running`: device bytes per segment while it runs itself.
    - `compute`: seconds per segment, with recomputation and streams.
    - `seconds`: per segment, with the copies that compute does not hide.
    - `faults`: rules the schedule breaks, as sentences; empty if it is sound.
    - `stays`: `(value, first, end)`: the value is on the device from segment `first`
        until before segment `end`.
    - `stacks`: the same, of one of it per iteration of a loop.
    - `successors`: positions in `stays` of what takes the place of what is carried,
        from where it is made until it is stored.
    - `carried`: device bytes of the state that stays on the device from step to step.
    - `workspace`: bytes per segment, by the variant that runs it.
    - `picked`: by segment, the variant that runs it, if not the default.
    - `again`: `(value, segment)`: the value is computed again for the segment.
    - `stored`: `(value, first, end)`: the value is copied to the host from segment
        `first` until before segment `end`, or everything waits for that at this cut.
    - `fetched`: the same of what is copied back.
    - `waits`: per cut, of which there is one more than there are segments, seconds for
        which everything waits for copies there. In `seconds`, all of them are counted
        in the last segment.
    """

    device: np.ndarray
    running: np.ndarray
    host: np.ndarray
    compute: np.ndarray
    seconds: np.ndarray
    faults: tuple[str, ...]
    stays: tuple[tuple[int, int, int], ...]
    stacks: tuple[tuple[int, int, int], ...] = ()
    successors: frozenset[int] = frozenset()
    carried: int = 0
    workspace: tuple[float, ...] = ()
    picked: Mapping[int, int] = dataclasses.field(default_factory=dict)
    again: frozenset[tuple[int, int]] = frozenset()
    stored: frozenset[tuple[int, int, int]] = frozenset()
    fetched: frozenset[tuple[int, int, int]] = frozenset()
    waits: tuple[float, ...] = ()

    def alive(self, segment: int) -> list[int]:
        """Values that are on the device at a segment."""
        return [v for v, first, end in self.stays if first <= segment < end]

    def stacked(self, segment: int) -> list[int]:
        """Values of which there is a stack on the device at a segment."""
        return [v for v, first, end in self.stacks if first <= segment < end]

    @property
    def device_peak(self) -> int:
        """The largest number of device bytes at any segment."""
        return int(self.device.max(initial=0))

    @property
    def host_peak(self) -> int:
        """The largest number of host bytes at any segment."""
        return int(self.host.max(initial=0))

    @property
    def makespan(self) -> float:
        """Seconds of the whole step."""
        return float(self.seconds.sum())


def replay(
    problem: Problem,
    schedule: Schedule,
    footprints: Sequence[Footprint] | None = None,
) -> Replay:
    """Replays a schedule and reports every rule it breaks.

    **Arguments:**

    - `problem`, `schedule`: what to replay.
    - `footprints`: of each tensor, where a search knows them already. A plan is
        checked without.

    **Returns:**

    A `Replay`.
    """
    return _Replayer(problem, schedule, footprints).run()


class _Replayer:
    def __init__(
        self,
        problem: Problem,
        schedule: Schedule,
        footprints: Sequence[Footprint] | None,
    ):
        self.problem = problem
        self.schedule = schedule
        self.footprints = footprints
        count = problem.segments
        self.device = problem.resident.copy()
        self.before = np.zeros(count)  # on the device while recomputing for k
        self.host = np.zeros(count)
        self.out = np.zeros(count)
        self.into = np.zeros(count)
        self.again = np.zeros(count)
        self.compute = np.array(problem.compute, dtype=float)
        self.workspace = np.array(problem.workspace, dtype=float)
        self.staged = np.zeros(count)
        self.picked: dict[int, int] = {}
        self.waits = np.zeros(count + 1)
        self.carried = 0
        self.faults: list[str] = []
        self.stays: list[tuple[int, int, int]] = []
        self.stacks: list[tuple[int, int, int]] = []
        self.successors: set[int] = set()
        self.stored: set[tuple[int, int, int]] = set()
        self.fetched: set[tuple[int, int, int]] = set()
        self.position = {t.value: i for i, t in enumerate(problem.tensors)}

    def run(self) -> Replay:
        problem = self.problem
        recomputed: dict[int, set[int]] = defaultdict(set)
        reads: dict[int, set[int]] = defaultdict(set)
        runs: set[tuple[int, int]] = set()
        for item in self.schedule.recomputes:
            at = self._known(item.value, "recomputation")
            if at is None:
                continue
            recipe = problem.tensors[at].recipe
            if recipe is None or item.use not in recipe.seconds:
                self._fault(item.value, f"may not be computed again at {item.use}")
                continue
            recomputed[at].add(item.use)
            if recipe.run is None or (recipe.run, item.use) not in runs:
                self.again[item.use] += recipe.seconds[item.use]
            if recipe.run is not None:
                runs.add((recipe.run, item.use))
            for root in recipe.roots:
                reads[root].add(item.use)
        for pick in self.schedule.picks:
            self._pick(pick)
        streams = self._streams()
        stores: dict[int, list[Store]] = defaultdict(list)
        fetches: dict[int, list[Fetch]] = defaultdict(list)
        for store in self.schedule.stores:
            at = self._known(store.value, "store")
            if at is not None:
                stores[at].append(store)
        for fetch in self.schedule.fetches:
            at = self._known(fetch.value, "fetch")
            if at is not None:
                fetches[at].append(fetch)
        for i in range(len(problem.tensors)):
            self._replay_tensor(
                i, recomputed[i], reads[i], stores[i], fetches[i], streams[i]
            )
        return self._finish(recomputed)

    def _pick(self, pick: Pick) -> None:
        known = self.problem.variants.get(pick.segment, ())
        if not 1 <= pick.variant <= len(known):
            self.faults.append(f"Segment {pick.segment} has no variant {pick.variant}.")
        elif pick.segment in self.picked:
            self.faults.append(f"Segment {pick.segment} runs by two variants.")
        else:
            variant = known[pick.variant - 1]
            self.picked[pick.segment] = pick.variant
            self.compute[pick.segment] = variant.seconds
            self.workspace[pick.segment] = variant.workspace
            self.host[pick.segment] += variant.host

    def _streams(self) -> dict[int, set[int]]:
        """Segments by tensor; what they take is added up here."""
        by_tensor: dict[int, set[int]] = defaultdict(set)
        by_segment: dict[int, set[int]] = defaultdict(set)
        for stream in self.schedule.streams:
            at = self._known(stream.value, "stream")
            if at is not None:
                by_tensor[at].add(stream.at)
                by_segment[stream.at].add(at)
        for segment, host in by_segment.items():
            found = self.problem.streamed(segment, host)
            if found is None:
                values = sorted(self.problem.tensors[i].value for i in host)
                self.faults.append(
                    f"Segment {segment} cannot run with {values} on the host."
                )
                continue
            self.again[segment] += found.seconds
            self.staged[segment] += found.staging
        return by_tensor

    def _known(self, value: int, what: str) -> int | None:
        if value not in self.position:
            self.faults.append(
                f"There is a {what} of value {value}, which is no tensor."
            )
            return None
        return self.position[value]

    def _fault(self, value: int, text: str) -> None:
        self.faults.append(f"Value {value} {text}.")

    def _replay_tensor(
        self,
        index: int,
        recomputed: set[int],
        reads: set[int],
        stores: list[Store],
        fetches: list[Fetch],
        streams: set[int],
    ) -> None:
        tensor = self.problem.tensors[index]
        nbytes = tensor.nbytes
        if self.footprints is None:
            found = footprint(tensor, recomputed, reads, stores, fetches, streams)
        else:
            found = self.footprints[index]
        for fault in found.faults:
            self._fault(tensor.value, fault)
        for first, end in found.stays:
            self.device[first:end] += nbytes
            self.stays.append((tensor.value, first, end))
        if found.stays and tensor.carried is not None and tensor.carried.made:
            self.successors.add(len(self.stays) - 1)
        if found.is_resident:
            self.carried += nbytes
            self.device += nbytes
        if found.stack is not None and tensor.crossing is not None:
            self.waits[tensor.crossing.made[1]] += tensor.crossing.seconds
            self.device[slice(*found.stack)] += tensor.stacked
            self.stacks.append((tensor.value, *found.stack))
        link = self.problem.link
        for window in found.out:
            self._copy(self.out, window, tensor, link.d2h)
            self.stored.add((tensor.value, *window))
        for window in found.into:
            self._copy(self.into, window, tensor, link.h2d)
            self.fetched.add((tensor.value, *window))
        if tensor.crossing is not None:
            delay = found.ahead * first_copy(tensor, link)
            self.waits[tensor.crossing.read[0]] += delay
        if found.host is not None:
            self.host[slice(*found.host)] += tensor.stacked
        if tensor.maker is not None and tensor.maker not in streams:
            self.before[tensor.maker] -= nbytes

    def _copy(
        self, lane: np.ndarray, window: Interval, tensor: Tensor, bandwidth: float
    ) -> None:
        link, times = self.problem.link, tensor.times
        first, end = window
        compute = np.array(self.problem.compute[first:end])
        if not compute.size:
            self.waits[end] += times * link.alone(tensor.nbytes, bandwidth)
            return
        self.waits[end] += times * link.delay(tensor.nbytes, bandwidth)
        total = compute.sum()
        share = compute / total if total else np.full(compute.size, 1 / compute.size)
        lane[first:end] += times * tensor.nbytes * share

    def _finish(self, recomputed: dict[int, set[int]]) -> Replay:
        problem, link = self.problem, self.problem.link
        running = self.device + self.workspace + self.staged
        device = running.copy()
        for index, uses in recomputed.items():
            recipe = problem.tensors[index].recipe
            if recipe is None:
                continue
            for use in uses:
                while_again = self.device[use] + self.before[use] + recipe.workspace
                device[use] = max(device[use], while_again)
        compute = self.compute + self.again
        seconds = np.maximum.reduce(
            [
                compute,
                self.out / link.d2h,
                self.into / link.h2d,
                (self.out + self.into) / link.duplex,
            ]
        )
        if device.max(initial=0) > problem.device_limit * (1 + 1e-9) + 1:
            worst = int(device.argmax())
            self.faults.append(
                f"Segment {worst} needs {int(device[worst])} device bytes, over the "
                f"limit of {int(problem.device_limit)}."
            )
        if self.host.max(initial=0) > problem.host_limit * (1 + 1e-9) + 1:
            self.faults.append(
                f"The host copies take {int(self.host.max())} bytes, over the limit of "
                f"{int(problem.host_limit)}."
            )
        if seconds.size:
            seconds[-1] += self.waits.sum()
        faults, stays = tuple(self.faults), tuple(self.stays)
        again = {
            (problem.tensors[i].value, use)
            for i, uses in recomputed.items()
            for use in uses
        }
        return Replay(
            device,
            running,
            self.host,
            compute,
            seconds,
            faults,
            stays,
            tuple(self.stacks),
            frozenset(self.successors),
            self.carried,
            tuple(self.workspace),
            self.picked,
            frozenset(again),
            frozenset(self.stored),
            frozenset(self.fetched),
            tuple(self.waits.tolist()),
        )
