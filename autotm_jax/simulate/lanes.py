"""What of a machine can be busy at once, and how fast it is then."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence


class Lane(enum.Enum):
    """What of a machine is busy."""

    COMPUTE = "compute"
    D2H = "D2H"
    H2D = "H2D"


@dataclasses.dataclass(frozen=True)
class Engines:
    """How fast the lanes are, alone and beside each other.

    - `d2h`, `h2d`: bytes per second.
    - `duplex`: of both directions together. While both copy, each is slowed down by the
        same factor, so that they share it in proportion to their own rates.
    - `latency`: seconds before the first byte of each copy. They slow nobody down.
    - `compute_interference`: compute takes (1 + this times the copying lanes) as long.
    - `copy_interference`: a copy beside compute takes (1 + this) as long.
    - `one_engine`: both directions have one engine, which serves all copies in the
        order given. With copies that start and end with a segment, this is AutoTM's
        fork and join.

    **Raises:**

    - `ValueError`: if nothing could be copied, or copies would speed things up.
    """

    d2h: float
    h2d: float
    duplex: float = float("inf")
    latency: float = 0
    compute_interference: float = 0
    copy_interference: float = 0
    one_engine: bool = False

    def __post_init__(self) -> None:
        for name in ("d2h", "h2d", "duplex"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"Copies pass at {getattr(self, name)} bytes per second ({name}): "
                    "give a number greater than zero."
                )
        for name in ("latency", "compute_interference", "copy_interference"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"The {name} is {getattr(self, name)}: give zero or more."
                )

    def pace(self, lane: Lane, beside: Sequence[Lane]) -> float:
        """Seconds per unit of work of a lane.

        **Arguments:**

        - `lane`: which.
        - `beside`: all lanes that are computing or copying, this one among them.
        """
        if lane is Lane.COMPUTE:
            copying = sum(other is not Lane.COMPUTE for other in beside)
            return 1 + self.compute_interference * copying
        rate = self.d2h if lane is Lane.D2H else self.h2d
        slower = 1
        if Lane.D2H in beside and Lane.H2D in beside:
            slower = max(1, (self.d2h + self.h2d) / self.duplex)
        if Lane.COMPUTE in beside:
            slower = slower * (1 + self.copy_interference)
        return slower / rate
