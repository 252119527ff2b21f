"""Two memories that kernels read and write, and the ones of AutoTM's experiments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Memories:
    """Bytes per second of a fast and a slow memory.

    - `fast_read`, `fast_write`: of kernels, in the fast one.
    - `slow_read`, `slow_write`: of kernels, in the slow one.
    - `out`, `into`: of copies to the slow one, and back.
    - `sources`: where each figure comes from, by field name.
    """

    fast_read: float
    fast_write: float
    slow_read: float
    slow_write: float
    out: float
    into: float
    sources: Mapping[str, str] = dataclasses.field(
        default_factory=dict, hash=False, repr=False
    )


_FIGURE = "measured by the AutoTM authors (darchr/ml-tools, Benchmarks/plot.tex)"
_PLANNER = "the constant of the AutoTM authors' planner for synchronous copies"

OPTANE = Memories(
    fast_read=110e9,
    fast_write=78.6e9,
    slow_read=39.7e9,
    slow_write=2.8e9,
    out=12e9,
    into=29e9,
    sources={
        "fast_read": f"{_FIGURE}: reads of DRAM",
        "fast_write": f"{_FIGURE}: writes of DRAM",
        "slow_read": f"{_FIGURE}: reads of Optane",
        "slow_write": f"{_FIGURE}: ordinary stores of 24 threads into Optane",
        "out": f"{_PLANNER}; streaming stores of five threads reach 11.9 GB/s",
        "into": f"{_PLANNER}; streaming loads of 24 threads reach 27.4 GB/s",
    },
)
"""DRAM and Optane DC memory of one socket of a Cascade Lake server, with 24 threads.

Kernels write by ordinary stores, through the caches: so do the direct convolutions of
MKL-DNN, which AutoTM runs (`vmovups` in `jit_avx512_common_conv_kernel.cpp`). And so
all of VGG, Inception, ResNet-200 and DenseNet in Optane comes close to the 3 to 8 times
as slow that the authors report, which it does not with `STREAMING_STORES`.
"""

STREAMING_STORES = dataclasses.replace(
    OPTANE,
    slow_write=7.9e9,
    sources={
        **OPTANE.sources,
        "slow_write": f"{_FIGURE}: streaming stores of 24 threads into Optane",
    },
)
"""The same, if kernels write past the caches, as the copies do."""
