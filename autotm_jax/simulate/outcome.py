"""What a way to place a step's values comes to on a simulated machine."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Seconds and bytes of one step, simulated.

    - `name`: which way.
    - `seconds`: of the step.
    - `out`, `into`: bytes copied from fast to slow memory, and back.
    - `fast_bytes`: the most bytes of temporaries in fast memory at a time.
    - `fast_read`: the part of the bytes that kernels read and write which they find in
        fast memory, from 0 to 1.
    - `note`: what else has to be known; empty if nothing.
    """

    name: str
    seconds: float
    out: int = 0
    into: int = 0
    fast_bytes: int = 0
    fast_read: float = 1.0
    note: str = ""
