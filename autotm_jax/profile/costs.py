"""What a program costs on a machine."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cost:
    """Time and memory of one fragment.

    - `seconds`: time on the device.
    - `workspace`: device bytes that it needs beyond the values it reads and writes;
        negative where a result takes the place of a dying operand.
    """

    seconds: float
    workspace: int


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of a program, with their sources.

    - `segments`: one `Cost` per segment.
    - `recomputations`: one per value in `Program.recomputations`.
    - `joined`: for pairs in `Program.joined`, the seconds that the recomputation adds
        to the segment.
    - `time_source`, `memory_source`: where the figures come from.
    - `is_measured`: whether the seconds are, but for what could not be timed.
    """

    segments: tuple[Cost, ...]
    recomputations: dict[int, Cost]
    joined: dict[tuple[int, int], float]
    time_source: str
    memory_source: str
    is_measured: bool = False

    def again(self, value: int, segment: int) -> float:
        """Seconds of computing a value again right before a segment."""
        alone = self.recomputations[value].seconds
        return min(alone, self.joined.get((value, segment), alone))
