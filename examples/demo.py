"""What a memory budget does to a training step: `python -m examples.demo`.

No GPU is needed, and it takes a few minutes on two cores.

1. A small GPT is trained on the CPU, on the sources of Python's standard library, by
   `jax.jit` and by `autotm.jit` at a budget that makes the plan move values. The losses
   are printed side by side; the demo fails if they differ.
2. The training step of a GPT with 12 layers is compiled for an H100 with whatever JAX
   offers against running out of memory, and with `autotm.jit` at several budgets. The
   bytes are those of the executables, the times are modelled.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any


# Before JAX starts: part 1 runs on the CPU, and part 2 compiles for an absent GPU.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA warns at length

import jax
import jax.numpy as jnp

import autotm_jax as autotm
from autotm_jax.budget import format_bytes
from benchmarks import baselines
from benchmarks.modelled import compute_seconds
from benchmarks.workloads import Workload, gpt

from . import corpus


SMALL = gpt.Config(
    layers=4,
    width=128,
    heads=4,
    vocabulary=corpus.VOCABULARY,
    length=128,
    batch=8,
    dtype=jnp.float32,
)
STEPS = 30
TOLERANCE = 1e-5
BUDGETS = ("20GiB", "12GiB", "8GiB", "6GiB", "min")
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def train(steps: int = STEPS) -> float:
    """Trains twice on the same data and prints both losses at every step.

    **Arguments:**

    - `steps`: how many.

    **Returns:**

    The largest relative difference of the losses.
    """
    workload = gpt.workload(SMALL)
    budget = _tight_budget(workload)

    @autotm.jit(budget=budget, donate_argnums=0)
    def train_step(state: Any, batch: Any) -> Any:
        return workload.step(state, batch)

    plain_step = jax.jit(workload.step, donate_argnums=0)
    state, _ = workload.make(0)
    plain_state = jax.tree.map(jnp.copy, state)
    windows = corpus.batches(corpus.load(), SMALL.batch, SMALL.length + 1, seed=0)
    worst = 0.0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for number in range(1, steps + 1):
            batch = {"tokens": jnp.asarray(next(windows))}
            state, loss = train_step(state, batch)
            plain_state, plain_loss = plain_step(plain_state, batch)
            difference = abs(float(loss) / float(plain_loss) - 1)
            worst = max(worst, difference)
            if number == 1:
                _tell_plan(train_step.plan(state, batch), said)
                print(f"\n  {'step':>4}  {'jax.jit':>9}  {'autotm.jit':>10}  relative")
            row = f"{float(plain_loss):>9.6f}  {float(loss):>10.6f}  {difference:.1e}"
            print(f"  {number:>4}  {row}", flush=True)
    return worst


def _tight_budget(workload: Workload) -> int:
    # A quarter of the way from the least to what the plain step takes.
    plain_step = jax.jit(workload.step, donate_argnums=0)
    plain = autotm.device_bytes(plain_step.lower(*workload.args).compile())
    least_step = autotm.jit(workload.step, budget="min", donate_argnums=0)
    least = least_step.plan(*workload.args).device_bytes
    assert least is not None
    budget = least + (plain - least) // 4
    print(
        f"  jax.jit takes {format_bytes(plain)}; the least that a plan needs is "
        f"{format_bytes(least)}; the budget is {format_bytes(budget)}."
    )
    return budget


def _tell_plan(plan: autotm.Plan, said: list[warnings.WarningMessage]) -> None:
    moved, again = len(plan.schedule.stores), len(plan.schedule.recomputes)
    assert moved or again, "the budget should have made the plan move something"
    print(
        f"  The plan moves {moved} values ({format_bytes(plan.moved_bytes)}) and "
        f"computes {again} again ({format_bytes(plan.recomputed_bytes)})."
    )
    for message in dict.fromkeys(
        str(w.message) for w in said if issubclass(w.category, autotm.AutoTMWarning)
    ):
        print(f"  Note: {message}")


def compare() -> None:
    """Compiles the reference transformer every way and prints a table."""
    target = autotm.target("h100-sxm")
    config = gpt.Config()
    workload = gpt.workload(config)
    card = 8 * 2**30
    head = f"{'device MiB':>10}  {'host MiB':>8}  {'modelled ms':>11}"
    print(f"\n  {'program':<48}  {head}")
    plain = compute_seconds(workload, target)
    _tell_baseline(baselines.plain(workload, target), plain)
    for row, policy in zip(
        baselines.checkpoints(config, target),
        baselines.CHECKPOINT_POLICIES.values(),
        strict=True,
    ):
        remat = gpt.workload(dataclasses.replace(config, remat=policy))
        _tell_baseline(row, compute_seconds(remat, target))
    _tell_baseline(baselines.xla_remat(workload, target, card), None)
    _tell_baseline(baselines.xla_offload(workload, target, card), None)
    for budget in BUDGETS:
        _tell_budget(workload, target, budget)
    print(
        "\n  Bytes are those of the executables, arguments included. Times are a "
        "roofline of the\n  machine's description: none where the copies were not "
        "planned here, or where XLA\n  chose what to compute again."
    )


def _tell_budget(workload: Workload, target: autotm.Target, budget: str) -> None:
    donate = workload.donate_argnums
    step = autotm.jit(
        workload.step, budget=budget, target=target, donate_argnums=donate
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        step.lower(*workload.args)
    plan = step.plan(*workload.args)
    assert plan.realised is not None
    device, host = plan.realised.device_bytes, plan.realised.host_bytes
    _tell(f"autotm.jit, budget {budget}", device, host, plan.seconds)
    for message in said:
        if issubclass(message.category, autotm.AutoTMWarning):
            print(f"    Note: {message.message}")


def _tell_baseline(row: baselines.Baseline, seconds: float | None) -> None:
    _tell(row.name, row.device_bytes, row.host_bytes, seconds)


def _tell(name: str, device: int, host: int, seconds: float | None) -> None:
    time_text = "-" if seconds is None else f"{seconds * 1e3:.1f}"
    figures = f"{device / 2**20:>10,.0f}  {host / 2**20:>8,.0f}  {time_text:>11}"
    print(f"  {name:<48}  {figures}", flush=True)


def main() -> None:
    """Runs both parts; see the module's text."""
    start = time.perf_counter()
    print("1. Values: a small GPT, trained on the CPU with and without a budget")
    worst = train()
    print(f"\n  The largest relative difference of the losses is {worst:.1e}.")
    if worst > TOLERANCE:
        sys.exit(f"The losses differ by more than {TOLERANCE:.0e}: this is a bug.")
    print("\n2. Memory: a GPT of 12 layers, compiled for an H100 (a row takes 10-30 s)")
    compare()
    for path in sorted(RESULTS.glob("*.json")):
        if "-compiled-" not in path.name:  # that is what no device has run
            print(f"  Measured on a real device: benchmarks/results/{path.name}")
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
