"""What segments take longer with operands and results on the host.

AutoTM times its kernels in every IO configuration. Here a kernel reads device memory
only, so a configuration means streaming: the segment fetches such an operand first, and
stores such a result when it is done. Where that has been timed the time is used, and
the price of the copies otherwise.
"""

from __future__ import annotations

from ..machine import Machine
from ..trace import Fragment, Program
from .configurations import ON_DEVICE, Configuration, configurations
from .costs import Streaming
from .profiler import Profile


# At most so many configurations of a segment, those with fewest copies first.
_MOST = 64


def streaming(
    program: Program, machine: Machine, found: Profile | None = None
) -> dict[int, tuple[Streaming, ...]]:
    """The IO configurations of all segments, but for those with nothing on the host.

    **Arguments:**

    - `program`, `machine`: what runs, and where.
    - `found`: what was timed, if anything was.

    **Returns:**

    By segment; at most 63 of each.
    """
    out: dict[int, tuple[Streaming, ...]] = {}
    for segment in program.segments:
        body = segment.body
        kept = configurations(program, body, _MOST).kept
        ways = [c for c in kept if c != ON_DEVICE]
        timed = [None if found is None else found.added(body, c) for c in ways]
        out[segment.index] = tuple(
            Streaming(
                frozenset(_values(body, c)),
                _price(program, machine, body, c) if seconds is None else seconds,
            )
            for c, seconds in zip(ways, timed, strict=True)
        )
    return out


def _values(body: Fragment, configuration: Configuration) -> list[int]:
    reads = [body.reads[i] for i in configuration.reads]
    return reads + [body.writes[i] for i in configuration.writes]


def _price(
    program: Program, machine: Machine, body: Fragment, configuration: Configuration
) -> float:
    into = sum(program.values[body.reads[i]].nbytes for i in configuration.reads)
    out = sum(program.values[body.writes[i]].nbytes for i in configuration.writes)
    copies = len(configuration.reads) + len(configuration.writes)
    latency = machine.transfer_latency * copies
    return latency + into / machine.h2d_bandwidth + out / machine.d2h_bandwidth
