"""What can be had without this package, compiled for a target and measured.

`JAX_PLATFORMS=cpu python -m benchmarks.baselines` prints the table for the reference
transformer:

- `jax.jit` alone;
- `jax.checkpoint` on each layer, once for each policy that could serve it;
- XLA's own rematerialisation, and XLA's own offload to the host, on the same card
    simulated with less memory. Neither promises to fit: the bytes that the program
    takes may well be more than the simulated card has.

All figures are of compiled programs, so no device is needed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

import autotm_jax
from autotm_jax.compile import temp_bytes

from . import workloads
from .workloads import gpt


MIB = 2**20
GIB = 2**30

CHECKPOINT_POLICIES: Mapping[str, Callable[..., Any]] = {
    "nothing_saveable": jax.checkpoint_policies.nothing_saveable,
    "dots_saveable": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims_saveable": (
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
    "offload_dot_with_no_batch_dims": (
        jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host")
    ),
    "offload_layer_inputs": (
        jax.checkpoint_policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[gpt.LAYER_INPUT],
            offload_src="device",
            offload_dst="pinned_host",
        )
    ),
}
"""The policies of `jax.checkpoint` that a transformer's layers can use, by name."""


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What a compiled baseline takes.

    **Arguments:**

    - `name`: which baseline, and on which card if a simulated one.
    - `device_bytes`, `host_bytes`: what the program takes in each memory at its peak,
        its arguments included.
    - `temp_bytes`: the part of `device_bytes` that is temporaries.
    - `compile_seconds`: wall-clock time from the Python function to the executable.
    """

    name: str
    device_bytes: int
    host_bytes: int
    temp_bytes: int
    compile_seconds: float


def plain(workload: workloads.Workload, target: autotm_jax.Target) -> Baseline:
    """`jax.jit` alone."""
    return _compile("jax.jit", workload, target)


def checkpoints(config: gpt.Config, target: autotm_jax.Target) -> Iterator[Baseline]:
    """`jax.checkpoint` on each layer, for each of `CHECKPOINT_POLICIES`."""
    for name, policy in CHECKPOINT_POLICIES.items():
        workload = gpt.workload(dataclasses.replace(config, remat=policy))
        yield _compile(f"jax.checkpoint, {name}", workload, target)


def xla_remat(
    workload: workloads.Workload, target: autotm_jax.Target, memory: int
) -> Baseline:
    """XLA's own rematerialisation, on the target with `memory` bytes instead."""
    return _compile(
        f"XLA rematerialisation, {_gibibytes(memory)}",
        workload,
        target.with_memory(memory),
    )


def xla_offload(
    workload: workloads.Workload, target: autotm_jax.Target, memory: int
) -> Baseline:
    """XLA's own offload to the host, on the target with `memory` bytes instead."""
    return _compile(
        f"XLA offload, {_gibibytes(memory)}",
        workload,
        target.with_memory(memory),
        {"xla_gpu_enable_host_memory_offloading": True},
    )


def transformer(
    config: gpt.Config,
    target: autotm_jax.Target,
    memories: Sequence[int] = (8 * GIB, 6 * GIB, 4 * GIB),
) -> Iterator[Baseline]:
    """Every baseline of a transformer, XLA's own on cards of each size."""
    workload = gpt.workload(config)
    yield plain(workload, target)
    yield from checkpoints(config, target)
    for memory in memories:
        yield xla_remat(workload, target, memory)
    for memory in memories:
        yield xla_offload(workload, target, memory)


def _compile(
    name: str,
    workload: workloads.Workload,
    target: autotm_jax.Target,
    options: dict[str, bool | str] | None = None,
) -> Baseline:
    step = jax.jit(workload.step, donate_argnums=workload.donate_argnums)
    args = target.place(workload.args)
    start = time.perf_counter()
    compiled = step.lower(*args).compile(options)
    seconds = time.perf_counter() - start
    device, host = autotm_jax.device_bytes(compiled), autotm_jax.host_bytes(compiled)
    return Baseline(name, device, host, temp_bytes(compiled), seconds)


def _gibibytes(memory: int) -> str:
    return f"{memory / GIB:g} GiB card"


def main() -> None:
    """Prints a Markdown table, a row as soon as it is known."""
    print("| baseline | device MiB | host MiB | compile s |\n|---|---|---|---|")
    for row in transformer(gpt.Config(), autotm_jax.target("h100-sxm")):
        device, host = row.device_bytes / MIB, row.host_bytes / MIB
        figures = f"{device:,.0f} | {host:,.0f} | {row.compile_seconds:.1f}"
        print(f"| {row.name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
