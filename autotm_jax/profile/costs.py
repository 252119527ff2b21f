"""What a program costs on a machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Cost:
    """Time and memory of one fragment.

    - `seconds`: time on the device.
    - `workspace`: device bytes that it needs beyond the values it reads and writes;
        negative where a result takes the place of a dying operand.
    - `timeline`: when it needs them, if XLA said so.
    - `source`: where the seconds come from: `"measured"`, `"roofline"`, or `"scaled
        roofline"` for what could not be timed where the rest was.
    - `host_bytes`: of host memory, if it moves something itself.
    """

    seconds: float
    workspace: int
    source: str = "roofline"
    timeline: Timeline | None = None
    host_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Streaming:
    """A segment with some of its operands and results on the host.

    - `host`: those values.
    - `seconds`: how much longer it takes than with everything on the device.
    """

    host: frozenset[int]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Overwriting:
    """What XLA may overwrite in place while it is on the device since it was made.

    - `plain`: by segment, those of its dying operands whose place something there could
        take: see `Probe`.
    - `alone`: the values that are all that a kernel writes.
    """

    plain: Mapping[int, frozenset[int]] = dataclasses.field(default_factory=dict)
    alone: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of a program, with their sources.

    - `segments`: one `Cost` per segment.
    - `recomputations`: one per value in `Program.recomputations`.
    - `joined`: for pairs in `Program.joined`, the seconds that the recomputation adds
        to the segment.
    - `time_source`, `memory_source`: where the figures come from.
    - `not_timed`: why fragments could not be timed, and how many kinds each.
    - `is_measured`: whether the seconds are, but for what could not be timed.
    - `streaming`: by segment, what it takes longer with values on the host; only if it
        was asked for.
    - `variants`: by segment, the names and costs of the other ways to run it.
    - `overwriting`: what XLA may overwrite.
    - `left_out`: which variants cannot be had and why, and of how many segments.
    """

    segments: tuple[Cost, ...]
    recomputations: dict[int, Cost]
    joined: dict[tuple[int, int], float]
    time_source: str
    memory_source: str
    not_timed: dict[str, int] = dataclasses.field(default_factory=dict)
    is_measured: bool = False
    streaming: dict[int, tuple[Streaming, ...]] = dataclasses.field(
        default_factory=dict, repr=False
    )
    variants: dict[int, tuple[tuple[str, Cost], ...]] = dataclasses.field(
        default_factory=dict
    )
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    overwriting: Overwriting = Overwriting()

    def by(self, segment: int, variant: int) -> Cost:
        """The cost of a segment run by one of its variants; 0 is the default."""
        if not variant:
            return self.segments[segment]
        return self.variants[segment][variant - 1][1]

    def again(self, value: int, segment: int) -> float:
        """Seconds of computing a value again right before a segment."""
        alone = self.recomputations[value].seconds
        return min(alone, self.joined.get((value, segment), alone))
