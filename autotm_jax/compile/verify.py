"""Proof that XLA did what was planned, read from the executable."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ..solve.schedule import Schedule
from .memory import device_bytes, host_bytes


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What an executable shows.

    - `device_bytes`, `host_bytes`: what it reserves.
    - `copies`: copies between the memories in its scheduled HLO; `None` on backends
        that show none.
    - `faults`: promises that were not kept, as sentences. Memory is not among them:
        it is compared with the budget by whoever knows the budget.
    """

    device_bytes: int
    host_bytes: int
    copies: int | None
    faults: tuple[str, ...]


# XLA:GPU marks pinned host memory as memory space 5 of a layout.
_COPY = re.compile(r"= \((\S+?), (\S+?), [^)]*\) copy-start\(")
# In a loop, a slice of a stack is copied: out of it, or into it.
_SLICE = re.compile(
    r"= \((.*?)\) (?:fusion|dynamic-slice|dynamic-update-slice)-start\("
)
_HOST_LAYOUT = "S(5)"
_REMAT = re.compile(r"%\S*\.remat\S* = ")
_HOST_COMPUTE = re.compile(r'_xla_compute_type="host"|execution_thread="host"')


def examine(
    compiled: Any, schedule: Schedule, platform: str, copies: int | None = None
) -> Evidence:
    """Looks for a schedule in an executable.

    **Arguments:**

    - `compiled`: a `jax.stages.Compiled`.
    - `schedule`: what was planned.
    - `platform`: `"cuda"`, or another one, where only memory is read.
    - `copies`: how many copies it needs between the memories, if not as many as are
        planned.

    **Returns:**

    `Evidence`.
    """
    device, host = device_bytes(compiled), host_bytes(compiled)
    if platform != "cuda" or schedule == Schedule():
        return Evidence(device, host, None, ())
    text = compiled.as_text()
    found = _host_copies(text)
    wanted = schedule.copies if copies is None else copies
    faults = []
    if found < wanted:
        faults.append(
            f"XLA kept {found} of the {wanted} planned copies between device and "
            "host memory"
        )
    remat = len(_REMAT.findall(text))
    if remat:
        faults.append(f"XLA's own rematerialisation added {remat} instructions")
    if _HOST_COMPUTE.search(text):
        faults.append("XLA moved computation to the host, which is very slow")
    return Evidence(device, host, found, tuple(faults))


def _host_copies(text: str) -> int:
    pairs = _COPY.findall(text)
    plain = sum((_HOST_LAYOUT in to) != (_HOST_LAYOUT in of) for to, of in pairs)
    return plain + sum(_HOST_LAYOUT in found for found in _SLICE.findall(text))
