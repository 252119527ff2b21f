"""Predicted against measured seconds, on the device that is here.

`python -m benchmarks.prediction` takes the `-small` workloads on a CPU and GPT-12 on a
GPU, or those that are named. For each it measures the step, times every kind of its
segments and the copies, and prints

- the segments together against the step that is cut at each (`calibration`),
- what `autotm.jit` predicts for plans at two budgets, from those measurements, against
    what the planned step takes (`error`: predicted over measured, less one).

Planned steps are timed with their arguments donated, the state going round; the
untouched step likewise. All figures are medians from one run. `--json` writes them,
with the timings of the copies and of all segments, as soon as they are there. What does
not fit into `--minutes` is left out, and said.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax

import autotm_jax as autotm
from autotm_jax.calibration import calibrate
from autotm_jax.profile import measure_transfers

from . import workloads


BUDGETS = (0.75, "min")
STEPS = 10


def measured(workload: workloads.Workload, step: Any, steps: int) -> float:
    """Median seconds of a donated step, after two to warm up."""
    state, batch = workload.make(0)
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        state, loss = step(state, batch)
        jax.block_until_ready((state, loss))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def profiled(
    workload: workloads.Workload, time_limit: float, steps: int
) -> dict[str, Any]:
    """The step and its segments, of which none is begun after the limit (seconds)."""
    donate = workload.donate_argnums
    start = time.perf_counter()
    profile, whole = calibrate(
        workload.step, workload.args, donate, time_limit=time_limit
    )
    profile_seconds = time.perf_counter() - start
    plain = measured(workload, jax.jit(workload.step, donate_argnums=donate), steps)
    return {
        "workload": workload.name,
        "profile_seconds": profile_seconds,
        "segments_seconds": whole.segments,
        "cut_step_seconds": None if whole.step is None else whole.step.seconds,
        "donated_step_seconds": plain,
        "calibration": whole.ratio,
        "kinds": len(profile.measurements),
        "not_timed": profile.failures(),
        "plans": [],
        "segments": [
            {"kind": kind, "configuration": str(placed), **dataclasses.asdict(found)}
            for (kind, placed), found in profile.measurements.items()
        ],
    }


def planned(
    workload: workloads.Workload, budget: float | str, steps: int
) -> dict[str, Any]:
    """A plan's predicted and measured seconds."""
    donate = workload.donate_argnums
    step = autotm.jit(workload.step, budget=budget, donate_argnums=donate)
    predicted = step.plan(*workload.args).seconds
    seconds = measured(workload, step, steps)
    error = None if predicted is None else predicted / seconds - 1
    row: dict[str, Any] = {"budget": budget, "predicted": predicted}
    return {**row, "measured": seconds, "error": error}


def tell(row: dict[str, Any]) -> None:
    """Prints the figures of one workload."""
    together, step = row["segments_seconds"] * 1e3, row["donated_step_seconds"] * 1e3
    ratio = row["calibration"]
    print(
        f"{row['workload']:<14} jax.jit {step:9.2f} ms; {row['kinds']} kinds of "
        f"segment, together {together:9.2f} ms"
        + ("" if ratio is None else f", {ratio:.3f} of the step cut at each")
    )
    for reason, count in row["not_timed"].items():
        print(f"{'':<14} {count} not timed: {reason}")
    for plan in row["plans"]:
        if "skipped" in plan:
            print(f"{'':<14} budget {plan['budget']}: {plan['skipped']}")
            continue
        seconds = plan["measured"] * 1e3
        if plan["predicted"] is None:
            print(f"{'':<14} budget {plan['budget']}: untouched, {seconds:9.2f} ms")
            continue
        print(
            f"{'':<14} budget {plan['budget']}: predicted "
            f"{plan['predicted'] * 1e3:9.2f} ms, measured {seconds:9.2f} ms, "
            f"error {plan['error']:+.1%}"
        )


def main() -> None:
    """Measures and prints; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=[*workloads.names(), []])
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--minutes", type=float, default=7.5, help="for all of it")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    device = jax.devices()[0]
    is_cpu = device.platform == "cpu"
    usual = ["gpt-small", "resnet-small", "mlp-small"] if is_cpu else ["gpt-12"]
    copies = measure_transfers()
    print(copies)
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "device": copies.device,
        "jax": jax.__version__,
        "transfers": dataclasses.asdict(copies),
        "workloads": [],
    }

    def save() -> None:
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")

    for name in options.workloads or usual:
        workload, left = workloads.get(name), end - time.monotonic()
        row = profiled(workload, left / 2, STEPS)
        results["workloads"].append(row)
        save()
        for budget in BUDGETS:
            if end - time.monotonic() < left / 2:
                row["plans"].append({"budget": budget, "skipped": "no time was left"})
            else:
                row["plans"].append(planned(workload, budget, STEPS))
            save()
        tell(row)


if __name__ == "__main__":
    main()
