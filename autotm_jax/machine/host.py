"""How much pinned host memory there is to move to."""

from __future__ import annotations

import dataclasses
import os

from .machine import Machine


PINNED_CAP = "XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB"
"""The variable with which JAX's GPU client takes its cap of pinned host memory."""

_DEFAULT_CAP = 64


def physical_bytes() -> int:
    """Bytes of this host's memory, or 0 if it does not say."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def pinned_bytes() -> int:
    """Bytes of pinned host memory that JAX's GPU client lends at most, here.

    Whatever asks for more is told that memory is exhausted, however much there is. It
    is for all devices of this process together.
    """
    said = os.environ.get(PINNED_CAP, "")
    cap = (int(said) if said.isdigit() else _DEFAULT_CAP) * 2**30
    return min(cap, physical_bytes() or cap)


def with_lent_memory(machine: Machine, devices: int) -> Machine:
    """A GPU that is here, with no more host memory than JAX lends to each.

    **Arguments:**

    - `machine`: as it is described.
    - `devices`: how many of this process share what is lent.
    """
    if machine.platform != "cuda":
        return machine
    each = pinned_bytes() // max(1, devices)
    nbytes = min(machine.host_bytes or each, each)
    return dataclasses.replace(machine, host_bytes=nbytes)
