"""`autotm.jit`: `jax.jit` with a memory budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .budget import Budget, parse_budget, parse_host_budget
from .config import config
from .errors import TargetError
from .machine import Target
from .machine import target as find_target
from .plan import Plan
from .planfile import Saved, dumped, loaded
from .solve import Formulation, SolverOptions
from .step import Step


def jit(
    fun: Callable[..., Any] | None = None,
    /,
    *,
    budget: Budget = None,
    host_budget: int | str | None = None,
    move_state: bool = True,
    target: str | Target | None = None,
    measure: bool | None = None,
    solver: SolverOptions | None = None,
    formulation: str | Formulation = Formulation.JOINT,
    plan: Plan | None = None,
    **jit_options: Any,
) -> Any:
    """`jax.jit` that keeps a step within a device-memory budget.

    The first call with arguments of new shapes traces the step, decides for every
    large value whether it stays on the device, moves to pinned host memory, or is
    computed again, compiles the result and checks in the executable that the budget
    was kept. Results equal those of `jax.jit`; later calls cost what `jax.jit`'s do. A
    step that fits as it is, is left as it is.

    !!! Example

        ```python
        import autotm_jax as autotm

        @autotm.jit(budget="6GiB", donate_argnums=0)
        def train_step(state, batch):
            ...

        print(train_step.plan(state, batch))
        state, loss = train_step(state, batch)
        ```

    **Arguments:**

    - `fun`: the step. Left out, a decorator is returned.
    - `budget`: device memory for the whole executable, arguments included: bytes as an
        `int`, `"6GiB"`, `"500 MB"`, a `float` in (0, 1] as a fraction of what plain
        `jax.jit` needs, `"min"` for as little as possible (give or take a tenth of
        the temporaries, at most three tenths, where that makes the step much faster),
        or `None` for what the device has.
    - `host_budget`: pinned host memory, in bytes or as text; `None` for what the host
        has; 0 to move nothing.
    - `move_state`: whether donated state may live in pinned host memory between calls.
        It does for a budget that cannot be kept otherwise, or only by a slow step, and
        for `"min"` if it is a large part of that. Such leaves are `pinned_host`
        arrays, which other functions do not take: see `Step.place` and
        `autotm_jax.on_device`. It stays where `in_shardings` or `out_shardings` say
        in which memory, or in which layout, arrays are.
    - `target`: what to compile for: `None` for the default device, or a name of a
        described machine (see `autotm_jax.target`).
    - `measure`: whether the step's segments and the copies are timed on the device,
        once, or priced by the description of the nearest machine. By default they are
        timed where the device is here, unless `autotm_jax.config` says not to.
    - `solver`: limits of the solver.
    - `formulation`: which boolean program decides: `"joint"`, or one of AutoTM's, which
        do not recompute: `"static"` (every value has one place for life),
        `"synchronous"` (values move, and everything waits) or `"asynchronous"` (a copy
        runs beside one segment).
    - `plan`: a plan that was found before, of this step: from `autotm_jax.Plan.load`,
        or from the `.plan` of another `Step`. It is applied after a check that it is
        one of this program. Its budget is kept unless there is another one, and it
        says which boolean program it is of.
    - `**jit_options`: passed to `jax.jit`.

    **Returns:**

    A `Step`, called like the function, with `.plan`, `.lower`, `.trace` and
    `.__wrapped__`.

    **Raises:**

    - `BudgetError`: for a budget that is not one.
    - `TargetError`: for a target that is not known, or is to be measured and not here.
    - `ValueError`: for a formulation that is not one, and for limits of the solver that
        are none.
    - `TypeError`: if `fun` is not callable, `solver` is no `SolverOptions`, `plan` is
        no `Plan`, or `move_state` is no `bool`.
    - `InfeasibleBudget`: at the first call, if no plan meets the budget.
    - `PlanFileError`: at the first call, if `plan` is not one of this step; at once if
        it is none.
    """
    saved = None if plan is None else _saved(plan)
    if saved is not None and budget is None:
        budget = "min" if saved.budget is None else saved.budget
    parsed = parse_budget(budget)
    host = parse_host_budget(host_budget)
    if solver is not None and not isinstance(solver, SolverOptions):
        raise TypeError(
            f"solver is {solver!r}, of type {type(solver).__name__}. Give "
            "autotm.SolverOptions(time_limit=60), or leave it out."
        )
    if not isinstance(move_state, bool):
        raise TypeError(
            f"move_state is {move_state!r}, of type {type(move_state).__name__}. Give "
            "True for state that may be on the host between calls, or False."
        )
    program = _formulation(formulation)
    if saved is not None and saved.outline is not None:
        program = saved.outline.formulation
    chosen = None if target is None else find_target(target)
    if measure and chosen is not None and not chosen.is_present:
        raise TargetError(
            f"measure=True times the step on its target, and {chosen.machine.name!r} "
            "is not here. Leave measure out, or run where that device is."
        )

    def decorate(function: Callable[..., Any]) -> Step:
        if not callable(function):
            raise TypeError(
                f"autotm.jit expects a function, got {function!r}, a "
                f"{type(function).__name__}."
            )
        return Step(
            function,
            target=chosen,
            budget=parsed,
            host_budget=host,
            move_state=move_state,
            measure=measure,
            solver=solver or _usual_solver(),
            formulation=program,
            saved=saved,
            jit_options=jit_options,
        )

    return decorate if fun is None else decorate(fun)


def _usual_solver() -> SolverOptions:
    return SolverOptions(
        time_limit=config.solver_time_limit,
        gap=config.solver_gap,
        threads=config.solver_threads,
    )


def _saved(plan: Any) -> Saved:
    if not isinstance(plan, Plan):
        raise TypeError(
            f"plan is {plan!r}, of type {type(plan).__name__}. Give a plan: that of "
            "another step, or autotm.Plan.load(...) of a file."
        )
    return plan.saved or loaded(dumped(plan), "the plan that was given")


def _formulation(given: str | Formulation) -> Formulation:
    try:
        return Formulation(given)
    except ValueError:
        known = ", ".join(repr(f.value) for f in Formulation)
        raise ValueError(
            f"formulation is {given!r}. The boolean programs are {known}."
        ) from None
