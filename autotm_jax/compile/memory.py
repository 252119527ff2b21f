"""Reading what an executable reserves.

`peak_memory_in_bytes` mixes host and device memory, so the sums are made here from
the parts that every JAX version reports.
"""

from __future__ import annotations

from typing import Any


def device_bytes(compiled: Any) -> int:
    """Device memory of an executable: arguments, results and temporaries.

    **Arguments:**

    - `compiled`: a `jax.stages.Compiled`.

    **Returns:**

    argument + output - alias + temp, in bytes, device memory only.
    """
    return _sum(compiled, "")


def host_bytes(compiled: Any) -> int:
    """Host memory of an executable: the same sum over `pinned_host`, in bytes."""
    return _sum(compiled, "host_")


def temp_bytes(compiled: Any) -> int:
    """Device memory of an executable's temporaries, in bytes."""
    return _part(compiled.memory_analysis(), "temp")


def _part(stats: Any, name: str) -> int:
    return int(getattr(stats, f"{name}_size_in_bytes", 0))


def _sum(compiled: Any, prefix: str) -> int:
    stats = compiled.memory_analysis()
    if stats is None:
        raise RuntimeError(
            "This backend does not report the memory of an executable, so a budget "
            "cannot be checked on it."
        )
    part = {
        n: _part(stats, prefix + n) for n in ("argument", "output", "alias", "temp")
    }
    return part["argument"] + part["output"] - part["alias"] + part["temp"]
