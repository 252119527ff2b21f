"""A step planned for several budgets: time against memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .budget import Budget, format_bytes
from .errors import InfeasibleBudget
from .jit import jit
from .plan import Plan


_A_LITTLE_LESS = 0.97


@dataclasses.dataclass(frozen=True)
class Point:
    """One way to run a step.

    - `name`: the budget as it was given, or what the baseline is called.
    - `device_bytes`: predicted by the plan; of an untouched step, compiled. `None` if
        the budget cannot be met.
    - `seconds`: of the step, modelled; `None` if it was not analysed.
    - `plan`: for the budget; `None` for a baseline, and where there is none.
    - `reason`: why there is no plan.
    """

    name: str
    device_bytes: int | None
    seconds: float | None
    plan: Plan | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A step planned for several budgets, beside what else is there.

    - `points`: one per budget, as given.
    - `baselines`: the step without a plan, and what it was to be compared with.
    """

    points: tuple[Point, ...]
    baselines: tuple[Point, ...]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws seconds against device bytes; modelled.

        **Arguments:**

        - `path`: a file to write: `.png`, `.svg`, `.pdf`. `None` to write none.

        **Returns:**

        A `matplotlib.figure.Figure`. It needs no display.

        **Raises:**

        - `ReportError`: if matplotlib is missing, no point has both figures, or the
            file cannot be written.
        """
        from .report.pareto import plot_sweep

        return plot_sweep(self, None if path is None else Path(path))

    def __str__(self) -> str:
        rows = [("budget", "device", "step", "of jax.jit")]
        plain = self.baselines[0].seconds
        for point in (*self.points, *self.baselines):
            if point.device_bytes is None:
                is_planned = point.plan is not None or point in self.baselines
                reason = "not analysed" if is_planned else "cannot be met"
                rows.append((point.name, reason, "", ""))
                continue
            size, seconds = format_bytes(point.device_bytes), point.seconds
            time = "not analysed" if seconds is None else f"{seconds * 1e3:,.2f} ms"
            ratio = "" if not (seconds and plain) else f"{seconds / plain:.3f} x"
            rows.append((point.name, size, time, ratio))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                text.ljust(width) if n == 0 else text.rjust(width)
                for n, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), "Times are modelled."])


def sweep(
    fun: Callable[..., Any],
    args: Sequence[Any],
    budgets: Sequence[Budget],
    *,
    baselines: Mapping[str, Callable[..., Any]] | None = None,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Sweep:
    """Plans a step for several budgets. Nothing planned is compiled or run.

    !!! Example

        ```python
        found = autotm.sweep(
            train_step,
            (state, batch),
            ["20GiB", "10GiB", "min"],
            baselines={"jax.checkpoint": train_step_with_remat},
            donate_argnums=0,
        )
        print(found)
        found.plot("pareto.png")
        ```

    **Arguments:**

    - `fun`: the step, not jitted.
    - `args`: its arguments; arrays may be `jax.ShapeDtypeStruct`s.
    - `budgets`: as `autotm_jax.jit` takes them.
    - `baselines`: other functions of the same arguments to compare with, by name: the
        step with `jax.checkpoint` in it, say. They are compiled as they are for their
        bytes, and priced like the step: what they compute again is counted, copies of
        their own are not.
    - `progress`: is told what is done next.
    - `options`: of `autotm_jax.jit`, and so of `jax.jit`.

    **Returns:**

    A `Sweep`. A budget that cannot be met is a `Point` with a reason.

    **Raises:**

    - as `autotm_jax.jit`, but for `InfeasibleBudget`.
    """
    steps = [(budget, jit(fun, budget=budget, **options)) for budget in budgets]
    say = progress or (lambda text: None)
    points = []
    for budget, step in steps:
        say(f"budget {_name(budget)}")
        points.append(_planned(step, args, _name(budget)))
    every = []
    for name, function in {"jax.jit": fun, **(baselines or {})}.items():
        say(name)
        every.append(_baseline(name, function, args, options))
    plain = _without_a_limit(points, every[0])
    every[0] = dataclasses.replace(every[0], seconds=plain)
    points = [
        dataclasses.replace(p, seconds=plain) if p.plan and p.seconds is None else p
        for p in points
    ]
    return Sweep(tuple(points), tuple(every))


def _name(budget: Budget) -> str:
    is_bytes = isinstance(budget, int | np.integer)
    return format_bytes(int(budget)) if is_bytes else str(budget)


def _planned(step: Any, args: Sequence[Any], name: str) -> Point:
    try:
        plan = step.plan(*args)
    except InfeasibleBudget as error:
        return Point(name, None, None, reason=str(error))
    return Point(name, plan.device_bytes, plan.seconds, plan)


def _without_a_limit(points: Sequence[Point], plain: Point) -> float | None:
    # Orders of the same step differ a little; the fastest is what all are compared to.
    found = [p.plan.unconstrained_seconds for p in points if p.plan is not None]
    return min((s for s in (*found, plain.seconds) if s is not None), default=None)


def _baseline(
    name: str, function: Callable[..., Any], args: Sequence[Any], options: Any
) -> Point:
    untouched = jit(function, budget=1.0, **options).plan(*args)
    nbytes = untouched.device_bytes
    if nbytes is None:
        return Point(name, None, None, reason=untouched.note)
    # To be priced, it has to be planned for something it does not meet by itself.
    for budget in (int(_A_LITTLE_LESS * nbytes), "min"):
        try:
            plan = jit(function, budget=budget, **options).plan(*args)
        except InfeasibleBudget:
            continue
        return Point(name, nbytes, plan.unconstrained_seconds)
    return Point(name, nbytes, None)
