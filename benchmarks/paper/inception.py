"""Figure 10: Inception v4 at 18 budgets: time, IO bytes in DRAM, and bytes moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .registry import experiment
from .report import Cell, Report, Table
from .study import GB, Study


BUDGETS = 18


@experiment("inception")
def inception(study: Study) -> Report:
    """From a fiftieth of what its values take to all of it."""
    case = study.posed("inception-v4")
    fast = study.all_fast(case).seconds
    count = 4 if study.quick else BUDGETS
    rows: list[tuple[Cell, ...]] = []
    for number in range(1, count + 1):
        limit = max(case.peak / 50, case.peak * (number - 1) / (count - 1))
        touched = study.first_touch(case, limit)
        for way, found in (
            ("first touch", touched),
            ("static", study.static(case, limit)),
            ("synchronous", study.synchronous(case, limit)),
        ):
            gigabytes = found.into / GB, found.out / GB
            part = 100 * found.fast_read
            rows.append((limit / GB, way, found.seconds / fast, part, *gigabytes))
    return Report(
        "simulated Inception v4 (1024 images) at a sequence of budgets",
        "the same sweep of 18 ratios; its figures were not read.",
        "budgets are evenly spaced in bytes of DRAM here. Times are a roofline's.",
        (
            Table(
                "Slowdown, IO bytes in DRAM, and bytes moved, simulated",
                (
                    "DRAM, GB",
                    "way",
                    "slowdown",
                    "IO bytes in DRAM, percent",
                    "to DRAM, GB",
                    "to Optane, GB",
                ),
                tuple(rows),
            ),
        ),
        lambda figure: _draw(figure, rows),
    )


def _draw(figure: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    figure.set_size_inches(12, 3.5)
    time, part, moved = figure.subplots(1, 3)
    for way in ("first touch", "static", "synchronous"):
        found = [row for row in rows if row[1] == way]
        budgets = [row[0] for row in found]
        time.plot(budgets, [row[2] for row in found], "o-", label=way)
        part.plot(budgets, [row[3] for row in found], "o-", label=way)
    found = [row for row in rows if row[1] == "synchronous"]
    moved.plot([r[0] for r in found], [r[4] for r in found], "o-", label="to DRAM")
    moved.plot([r[0] for r in found], [r[5] for r in found], "o-", label="to Optane")
    labels = ("slowdown", "IO bytes in DRAM, percent", "GB moved (synchronous)")
    for axes, label in zip((time, part, moved), labels, strict=True):
        axes.set_xlabel("DRAM, GB")
        axes.set_ylabel(f"{label}\n(simulated)")
        axes.legend(fontsize=7)
