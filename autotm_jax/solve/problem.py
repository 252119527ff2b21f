"""The placement problem, in numbers: tensors, kernels, a link, two limits.

Notation of the joint program: segments k = 0 … K-1 take `compute[k]` seconds and
`workspace[k]` bytes; a tensor has a producer, touches, bytes, and perhaps a recipe to
compute it again.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..timeline import Timeline
from .schedule import Fetch, Store


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a tensor is computed again.

    - `seconds`: for each segment before which it may be done, the time it takes
        there: less where the segment reads the same roots anyway.
    - `workspace`: bytes beyond its roots and itself.
    - `roots`: tensors (by position in `Problem.tensors`) that have to be there.
    - `dissolved`: segments that read it for the last time, and into which it is fused:
        computed again for them alone it takes no memory.
    - `run`: of several tensors that one run makes, its number. It takes as long for one
        of them as for all, and before a segment it takes place once.
    """

    seconds: Mapping[int, float]
    workspace: int
    roots: tuple[int, ...]
    dissolved: frozenset[int] = frozenset()
    run: int | None = None


@dataclasses.dataclass(frozen=True)
class Crossing:
    """From the loop that makes a tensor in each iteration to the one that reads it.

    While it is kept, there is one of it per iteration, in a stack.

    - `made`, `read`: the segments `[first, end)` of the two loops.
    - `count`: iterations.
    - `seconds`: in a step, of writing a stack on the device and reading from it.
    - `is_mirrored`: whether the second loop runs the iterations in the other order, and
        is the last one.
    - `later`: of further loops that read it, in order.
    """

    made: tuple[int, int]
    read: tuple[int, int]
    count: int
    seconds: float = 0.0
    is_mirrored: bool = False
    later: tuple[tuple[int, int], ...] = ()

    @property
    def readers(self) -> tuple[tuple[int, int], ...]:
        """The segments of the loops that read it."""
        return self.read, *self.later

    @property
    def span(self) -> tuple[int, int]:
        """The segments during which a stack of it exists."""
        return self.made[0], self.readers[-1][1]

    def loop_at(self, segment: int) -> tuple[int, int]:
        """The segments of the loop in which a segment stands that uses it."""
        *_, found = (loop for loop in (self.made, *self.readers) if loop[0] <= segment)
        return found


@dataclasses.dataclass(frozen=True)
class Carried:
    """From one step to the next: a leaf of the step's state.

    It is there before the step begins, and when the step ends something else is in its
    place. That place is on the device, all the time, or on the host. Then it is fetched
    where it is read, and what takes its place is stored where it is made.

    - `made`: segments that make (the first) or read what takes its place; none if it is
        returned as it came.
    - `segments`: of the step.
    - `result`: what takes its place, by its number in the program.
    """

    made: tuple[int, ...]
    segments: int
    result: int = -1


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that crosses a cut and is large enough to decide about.

    - `value`: its number in the program.
    - `nbytes`: its size.
    - `touches`: segments that make (the first) or read it; what is carried is made by
        none of them.
    - `optional`: further segments where a recomputation of another tensor could read
        it.
    - `movable`: whether it may go to the host.
    - `recipe`: how to compute it again, if it may be.
    - `times`: how often it is made in a step, and so copied: in the body of a loop, in
        every iteration.
    - `crossing`: if it crosses from one loop to another.
    - `closed`: ranges `[first, end)` of segments of loops that it is not in. Nothing
        happens to it between those segments.
    - `carried`: if it is carried from step to step.
    """

    value: int
    nbytes: int
    touches: tuple[int, ...]
    optional: tuple[int, ...] = ()
    movable: bool = True
    recipe: Recipe | None = None
    times: int = 1
    crossing: Crossing | None = None
    closed: tuple[tuple[int, int], ...] = ()
    carried: Carried | None = None

    @property
    def maker(self) -> int | None:
        """The segment that makes it, if one does."""
        return None if self.carried is not None else self.touches[0]

    @property
    def stacked(self) -> int:
        """Bytes of all that is kept of it at once: a stack's, if it crosses loops."""
        return self.nbytes * (1 if self.crossing is None else self.crossing.count)

    def crosses(self, a: int, b: int) -> bool:
        """Whether it goes from one loop to another after segment `a`, before `b`."""
        crossing = self.crossing
        return crossing is not None and crossing.loop_at(a) != crossing.loop_at(b)

    def gaps(self, uses: Sequence[int], shortest: int) -> list[tuple[int, int]]:
        """Pairs of segments that use it, one after the other, between which it may go.

        **Arguments:**

        - `uses`: segments, in order.
        - `shortest`: from one to the other. From loop to loop no way is too short.

        **Returns:**

        The pairs; none in the loop that makes it for another one, and none of what is
        carried, which is on the host between steps or not at all.
        """
        if self.carried is not None:
            return []
        pairs = zip(uses, uses[1:], strict=False)
        reads = 0 if self.crossing is None else self.crossing.read[0]
        return [
            (a, b)
            for a, b in pairs
            if b >= reads and (b - a >= shortest or self.crosses(a, b))
        ]

    def is_open(self, cut: int) -> bool:
        """Whether copies of it may start or end at a cut."""
        return not any(first < cut < end for first, end in self.closed)

    def stored_by(self, a: int, b: int, cut: int) -> int:
        """The nearest cut, not before `cut`, where a store after `a` may end.

        It is followed by a fetch for segment `b`. From loop to loop it ends with the
        first of them at the latest.
        """
        for first, end in self.closed:
            cut = end if first < cut < end else cut
        last = self.crossing.made[1] if self.crossing and self.crosses(a, b) else b
        return max(a + 1, min(cut, last))

    def fetched_from(self, a: int, b: int, cut: int) -> int:
        """The nearest cut, not after `cut`, where a fetch for `b` may start."""
        for first, end in self.closed:
            cut = first if first < cut < end else cut
        crossing = self.crossing if self.crosses(a, b) else None
        first = a + 1 if crossing is None else crossing.loop_at(b)[0]
        return max(cut, first)

    def trip(self, a: int, b: int, done: int, start: int) -> tuple[Store, Fetch]:
        """To the host after segment `a` and back for segment `b`.

        **Arguments:**

        - `a`, `b`: segments.
        - `done`, `start`: about where the store should end and the fetch begin.

        **Returns:**

        A `Store` and a `Fetch`, which take no time beside compute where there is none.
        """
        done, start = self.stored_by(a, b, done), self.fetched_from(a, b, start)
        if done > start:
            done, start = a + 1, b
        return Store(self.value, a, done), Fetch(self.value, start, b)


@dataclasses.dataclass(frozen=True)
class Variant:
    """Another way to run a kernel: the same results, another time and workspace.

    - `name`: what reports call it.
    - `seconds`, `workspace`: what it takes, all its operands and results on the device.
    - `timeline`: when it takes the workspace, if that is known.
    - `host`: bytes of host memory that it takes itself.
    """

    name: str
    seconds: float
    workspace: int
    timeline: Timeline | None = dataclasses.field(default=None, repr=False)
    host: int = 0


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A kernel that finds operands, or leaves results, in host memory.

    AutoTM's IO configurations; the one with everything on the device is not listed.

    - `host`: tensors, by position in `Problem.tensors`.
    - `seconds`: time beyond that of the kernel with everything on the device. Where
        kernels read device memory only, that of streaming in and out.
    - `staging`: device bytes that the streamed tensors take while the kernel runs.
    - `part`: of a kernel whose tensors are divided, the part that `host` is of. A part
        adds its seconds and its staging whatever the others do, so that the kernel has
        a configuration for each choice of one, or none, from every part.
    """

    host: frozenset[int]
    seconds: float
    staging: int
    part: int = 0


@dataclasses.dataclass(frozen=True)
class Link:
    """The connection of the two memories.

    - `d2h`, `h2d`, `duplex`: bytes per second to the host, from it, and both together.
    - `latency`: seconds per copy.
    - `reach`: seconds of a copy that compute can hide at most.
    """

    d2h: float
    h2d: float
    duplex: float
    latency: float
    reach: float = float("inf")

    def delay(self, nbytes: int, bandwidth: float) -> float:
        """Seconds that compute does not hide of a copy that runs beside it."""
        return self.latency + max(0.0, nbytes / bandwidth - self.reach)

    def alone(self, nbytes: int, bandwidth: float) -> float:
        """Seconds of a copy that everything waits for."""
        return self.latency + nbytes / bandwidth


def first_copy(tensor: Tensor, link: Link) -> float:
    """Seconds of the fetches for the first iterations of a loop.

    What is fetched in one iteration for the next is fetched for the first one before
    the loop, and everything waits for it.
    """
    assert tensor.crossing is not None
    loops = tensor.times / tensor.crossing.count
    return loops * link.alone(tensor.nbytes, link.h2d)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Where should every tensor be, all the time?

    - `compute`, `workspace`: per segment, seconds and bytes.
    - `small`: values too small to decide about, as `(bytes, first, end)`: on the
        device from segment `first` until before segment `end`.
    - `tensors`: what is decided about.
    - `link`: the connection to the host.
    - `device_limit`, `host_limit`: bytes. The device limit is for temporaries and for
        tensors that are carried: other arguments and results are not part of the
        problem.
    - `variants`: by segment, other ways to run it, numbered from 1.
    - `configurations`: by segment, the placements of its operands and results that it
        can run with, besides all on the device.
    - `timelines`: by segment, when it takes its workspace, where that is known. No
        plan depends on it but for how its buffers pack.
    - `apart`: by value and segment, the same of computing it again before the segment
        and apart from it.
    """

    compute: tuple[float, ...]
    workspace: tuple[int, ...]
    small: tuple[tuple[int, int, int], ...]
    tensors: tuple[Tensor, ...]
    link: Link
    device_limit: float
    host_limit: float
    variants: Mapping[int, tuple[Variant, ...]] = dataclasses.field(
        default_factory=dict
    )
    configurations: Mapping[int, tuple[Configuration, ...]] = dataclasses.field(
        default_factory=dict
    )
    timelines: Mapping[int, Timeline] = dataclasses.field(
        default_factory=dict, repr=False
    )
    apart: Mapping[tuple[int, int], Timeline] = dataclasses.field(
        default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        for name, unit in (("compute", "seconds"), ("workspace", "bytes")):
            for segment, cost in enumerate(getattr(self, name)):
                is_negative = name == "compute" and cost < 0
                if not math.isfinite(cost) or is_negative:
                    raise ValueError(
                        f"Segment {segment} is said to take {cost} {unit} of {name}, "
                        "which nothing can. Measure it again, or leave it to the "
                        "roofline (measure=False)."
                    )

    @property
    def segments(self) -> int:
        """The number of segments, K."""
        return len(self.compute)

    @property
    def carried_bytes(self) -> int:
        """Bytes of the state among the tensors."""
        return sum(t.nbytes for t in self.tensors if t.carried is not None)

    @property
    def moved_only(self) -> Problem:
        """The same problem, as AutoTM has it: nothing is computed again."""
        tensors = tuple(
            dataclasses.replace(tensor, recipe=None, optional=())
            for tensor in self.tensors
        )
        return dataclasses.replace(self, tensors=tensors)

    @functools.cached_property
    def resident(self) -> np.ndarray:
        """Per segment, bytes that are there whatever is decided."""
        out = np.zeros(self.segments)
        for nbytes, first, end in self.small:
            out[first:end] += nbytes
        return out

    def fastest(self) -> float:
        """Seconds with nothing in the way, each segment by its fastest variant."""
        return sum(
            min([seconds, *(v.seconds for v in self.variants.get(k, ()))])
            for k, seconds in enumerate(self.compute)
        )

    def streamed(self, segment: int, host: Collection[int]) -> Configuration | None:
        """What it takes to run a segment with these tensors on the host.

        **Arguments:**

        - `segment`: which.
        - `host`: tensors, by position.

        **Returns:**

        A `Configuration`, added up over the parts; `None` if there is none.
        """
        known = self.configurations.get(segment, ())
        whole = next((c for c in known if c.host == host), None)
        if whole is not None:
            return whole
        part = {t: c.part for c in known for t in c.host}
        wanted: dict[int | None, set[int]] = {}
        for tensor in host:
            wanted.setdefault(part.get(tensor), set()).add(tensor)
        found = [c for c in known if c.host == wanted.get(c.part)]
        if len(found) < len(wanted):
            return None
        seconds, staging = sum(c.seconds for c in found), sum(c.staging for c in found)
        return Configuration(frozenset(host), seconds, staging)

    def floor(self) -> int:
        """A lower bound of the device bytes of every plan.

        At each segment: what it touches and needs itself, and what is resident.
        """
        here = self.resident + np.array(self.workspace, dtype=float)
        for segment, variants in self.variants.items():
            least = min(v.workspace for v in variants) - self.workspace[segment]
            here[segment] += min(0, least)
        for tensor in self.tensors:
            gone = frozenset() if tensor.recipe is None else tensor.recipe.dissolved
            made = () if tensor.carried is None else tensor.carried.made
            for segment in {*tensor.touches, *made} - gone:
                here[segment] += tensor.nbytes
        for segment, known in self.configurations.items():
            saved: dict[int, int] = {}
            for c in known:
                without = sum(self.tensors[i].nbytes for i in c.host) - c.staging
                saved[c.part] = max(saved.get(c.part, 0), without)
            here[segment] -= sum(saved.values())
        return int(here.max(initial=0))
