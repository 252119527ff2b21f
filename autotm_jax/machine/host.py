"""How much pinned host memory there is to move to."""

from __future__ import annotations

import os


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

    Whatever asks for more is told that memory is exhausted, however much there is.
    """
    said = os.environ.get(PINNED_CAP, "")
    cap = (int(said) if said.isdigit() else _DEFAULT_CAP) * 2**30
    return min(cap, physical_bytes() or cap)
