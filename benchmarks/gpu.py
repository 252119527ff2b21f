"""Real time on a real GPU: transfers, and the reference transformer every way.

`python -m benchmarks.gpu --json results.json` measures on the default device, in one
process per program so that each has the device to itself:

- copies between device and pinned host memory: each way, and both ways at once;
- GPT-12 with plain `jax.jit`, with `jax.checkpoint` per layer under each policy, and
  with `autotm.jit` at several budgets: seconds to plan, to compile and per step, bytes
  of the executable and peak bytes of the allocator, and the losses of the first steps.

Seconds per step are the median of the counted steps; all other figures are single
readings. The allocator's peak includes what XLA took while it tuned kernels.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import autotm_jax as autotm

from .baselines import CHECKPOINT_POLICIES
from .workloads import gpt


GIB = 2**30
BUDGETS = ("24GiB", "20GiB", "12GiB", "8GiB", "6.5GiB", "min")
PROGRAMS = (
    "jit",
    *(f"checkpoint {name}" for name in CHECKPOINT_POLICIES),
    *(f"autotm {budget}" for budget in BUDGETS),
)


def device() -> dict[str, Any]:
    """What the device is, and how fast its link to the host."""
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "transfers": transfers(),
    }


def transfers(sizes: tuple[int, ...] = (2**20, 2**24, 2**27, 2**29)) -> list[Any]:
    """Gigabytes per second of copies inside a jitted program, by size and direction."""
    device = jax.devices()[0]
    on_device = jax.sharding.SingleDeviceSharding(device, memory_kind="device")
    on_host = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
    out: list[Any] = []
    for nbytes in sizes:
        here = jax.device_put(jnp.zeros(nbytes // 4, jnp.float32), on_device)
        there = jax.device_put(here, on_host)
        store = jax.jit(lambda x: x, out_shardings=on_host)
        fetch = jax.jit(lambda x: x, out_shardings=on_device)
        both = jax.jit(
            lambda x, y: (
                jax.device_put(x, jax.memory.Space.Host),
                jax.device_put(y, jax.memory.Space.Device),
            )
        )
        seconds = {
            "d2h": _median(lambda f=store, x=here: f(x)),
            "h2d": _median(lambda f=fetch, x=there: f(x)),
            "both": _median(lambda f=both, x=here, y=there: f(x, y)),
        }
        row = {"bytes": nbytes, "seconds": seconds}
        row["gigabytes_per_second"] = {
            k: nbytes * (2 if k == "both" else 1) / s / 1e9 for k, s in seconds.items()
        }
        out.append(row)
    return out


def _median(run: Any, counted: int = 10) -> float:
    for _ in range(3):
        jax.block_until_ready(run())
    seconds = []
    for _ in range(counted):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def program(name: str, steps: int = 12) -> dict[str, Any]:
    """Compiles and runs one of `PROGRAMS` and returns what was seen."""
    kind, _, detail = name.partition(" ")
    remat = CHECKPOINT_POLICIES[detail] if kind == "checkpoint" else None
    workload = gpt.workload(dataclasses.replace(gpt.Config(), remat=remat))
    donate = workload.donate_argnums
    row: dict[str, Any] = {"program": name}
    start = time.perf_counter()
    if kind == "autotm":
        step = autotm.jit(workload.step, budget=detail, donate_argnums=donate)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            plan = step.plan(*workload.args)
        row["warnings"] = [str(w.message) for w in said]
        row["plan_seconds"] = time.perf_counter() - start
        row["predicted_device_bytes"] = plan.device_bytes
        row["predicted_host_bytes"] = plan.host_bytes
        row["predicted_seconds"] = plan.seconds
        row["predicted_unconstrained_seconds"] = plan.unconstrained_seconds
        start = time.perf_counter()
    else:
        step = jax.jit(workload.step, donate_argnums=donate)
    compiled = step.lower(*workload.args).compile()
    row["compile_seconds"] = time.perf_counter() - start
    row["device_bytes"] = autotm.device_bytes(compiled)
    row["host_bytes"] = autotm.host_bytes(compiled)
    state, batch = workload.make(0)
    losses, seconds = [], []
    for _ in range(steps):
        start = time.perf_counter()
        state, loss = step(state, batch)
        jax.block_until_ready((state, loss))
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss))
    stats = jax.devices()[0].memory_stats() or {}
    row["step_seconds"] = statistics.median(seconds[2:])
    row["step_seconds_range"] = [min(seconds[2:]), max(seconds[2:])]
    row["losses"] = losses
    row["peak_bytes_in_use"] = stats.get("peak_bytes_in_use")
    return row


def _alone(task: str, timeout: float) -> Any:
    command = [sys.executable, "-m", "benchmarks.gpu", "--task", task]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"program": task, "error": f"no answer within {timeout:g} s"}
    if done.returncode:
        return {"program": task, "error": done.stderr[-2000:]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures and prints; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", help="programs to run, by prefix")
    options = parser.parse_args()
    if options.task:
        task = options.task
        print(json.dumps(device() if task == "device" else program(task)))
        return
    # This process never touches the device: its allocator would keep most of it.
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "model": "GPT-12",
        **_alone("device", 120),
        "programs": [],
    }
    print(json.dumps(results), flush=True)
    wanted = options.only or [""]
    for name in PROGRAMS:
        if not any(name.startswith(prefix) for prefix in wanted):
            continue
        results["programs"].append(_alone(name, 400))
        print(json.dumps(results["programs"][-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
