"""A function with a memory budget: the face of `jax.jit`, and realising its plans."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

from . import compat
from .budget import format_bytes
from .compile import assign, examine, mark_on_host
from .config import LOGGER
from .errors import AutoTMError, TargetError, warn
from .plan import Plan, Realised
from .planned import PlannedFunction
from .residence import let_go
from .shared import check_same_plan
from .signature import NotPlanned, Signature, Use, unplanned
from .verdict import MOST_ROUNDS, judge


# JAX traces a step anew where its own settings have changed. Compiling may do that, if
# something is imported for it (a language for kernels, say): so often at most.
_TRACES = 3


class Step(PlannedFunction):
    """A function with a memory budget. Made by `autotm_jax.jit`."""

    def __init__(self, fun: Callable[..., Any], **asked: Any):
        functools.update_wrapper(self, fun)
        super().__init__(fun, **asked)

    def __repr__(self) -> str:
        _, budget, *_ = self._given
        return f"autotm_jax.jit({self._fun!r}, budget={budget!r})"

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Under another transformation the step is that transformation's to plan.
        if not compat.at_top_level():
            return self._plain(*args, **kwargs)
        try:
            for _ in range(_TRACES):
                with contextlib.suppress(NotPlanned):
                    return self._called(args, kwargs)
                args, kwargs = self._realise(args, kwargs)
            return self._called(args, kwargs)
        except NotPlanned:
            self._give_up("JAX traces it anew whenever it is compiled")
            return self._plain(*args, **kwargs)

    def _called(self, args: Any, kwargs: Any) -> Any:
        planned = self._planned  # first: another thread may be planning
        if self._divides and not self._arguments.are_placed(args):
            raise NotPlanned
        return planned(*args, **kwargs)

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """The plan for arguments of these shapes, without compiling it.

        **Arguments:**

        - as the step's own; arrays may be `jax.ShapeDtypeStruct`s.

        **Returns:**

        A `Plan`. Once the step has been compiled for these shapes, the one that is in
        use, with what XLA made of it.

        **Raises:**

        - `InfeasibleBudget`: if no plan meets the budget.
        """
        with self._planning():
            request = self._request()
            args, kwargs = self._arguments.on(request.target, args, kwargs)
            args, kwargs = self._typed(args, kwargs)
            traced = self._trace(args, kwargs)
            return self._entry(traced, request, args, kwargs).plan

    def verify(self, *args: Any, **kwargs: Any) -> Plan:
        """The plan for arguments of these shapes, after XLA has kept its budget.

        As `plan`, but the step is compiled, and planned again where XLA takes more than
        was predicted, until the budget is kept. For a device that is not here this is
        faster than `lower(...).compile()`, as XLA may leave out the code of kernels.

        !!! Example

            ```python
            step = autotm.jit(train_step, budget="8GiB", target="h100-sxm")
            plan = step.verify(state, batch)
            print(plan.realised.device_bytes)
            ```

        **Arguments:**

        - as the step's own; arrays may be `jax.ShapeDtypeStruct`s.

        **Returns:**

        A `Plan` with what XLA made of it, in `Plan.realised`.

        **Raises:**

        - `InfeasibleBudget`: if no plan meets the budget.
        - `PlanNotRealised`: if XLA did something else than was planned.
        """
        self._prepared(args, kwargs, Use.VERIFY)
        return self.plan(*args, **kwargs)

    def place(self, *args: Any, **kwargs: Any) -> Any:
        """Puts the state where the plan wants it between calls.

        A state that is elsewhere is moved by the first call. This does it before: for a
        state that comes from a checkpoint, say. What is moved is gone from where it
        was. `autotm_jax.on_device` brings it back. Nothing is moved with
        `move_state=False`, nor by a plan that needs no state moved.

        !!! Example

            ```python
            state = step.place(state, batch)
            for batch in batches:
                state, loss = step(state, batch)
            ```

        **Arguments:**

        - as the step's own; only those that are donated are moved.

        **Returns:**

        The donated arguments, those given by position before those given by name: as
        a tuple, or by itself if there is one.

        **Raises:**

        - `InfeasibleBudget`: if no plan meets the budget.
        - `TypeError`: if the step donates nothing, and so has no state.
        """
        donated = self._arguments.donated(len(args))
        if not donated:
            name = getattr(self._fun, "__name__", "the step")
            raise TypeError(
                f"{name} donates no argument, so it has no state to place: name its "
                "state in donate_argnums or donate_argnames of autotm.jit."
            )
        given = self._realise(args, kwargs, Use.PLACE)
        placed = [a for n, a in enumerate(given[0]) if n in donated]
        placed += [v for k, v in given[1].items() if k in donated]
        return placed[0] if len(placed) == 1 else tuple(placed)

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        """As `jax.jit`'s: the traced step, as it is emitted."""
        args, kwargs = self._prepared(args, kwargs)
        return self._planned.trace(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """As `jax.jit`'s: the lowered step. Its executable keeps the budget."""
        args, kwargs = self._prepared(args, kwargs)
        entry = self._entries.get(id(self._traced(args, kwargs).jaxpr))
        if entry is None:
            raise NotPlanned
        return self._lowered(entry.plan, args, kwargs)

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """As `jax.jit`'s."""
        args, kwargs = self._typed(args, kwargs)
        return self._plain.eval_shape(*args, **kwargs)

    def clear_cache(self) -> None:
        """Forgets every plan and executable."""
        with self._lock:
            jitted: Any = self._plain
            jitted.clear_cache()
            self._forget()

    def _prepared(
        self, args: Any, kwargs: Any, use: Use = Use.LOWER
    ) -> tuple[Any, Any]:
        request = self._request()
        args, kwargs = self._arguments.on(request.target, args, kwargs)
        return self._realise(args, kwargs, use)

    def _realise(self, args: Any, kwargs: Any, use: Use = Use.CALL) -> tuple[Any, Any]:
        """Plans, compiles and checks until the budget is kept.

        Returns the arguments to call with: see `_delivered`.
        """
        for _ in range(_TRACES - 1):
            # Unless JAX has traced it anew on the way.
            with contextlib.suppress(NotPlanned):
                return self._realise_traced(args, kwargs, use)
        return self._realise_traced(args, kwargs, use)

    def _realise_traced(self, args: Any, kwargs: Any, use: Use) -> tuple[Any, Any]:
        with self._planning():
            request = self._request()
            if use.runs and not request.target.is_present:
                raise TargetError(
                    f"This step is compiled for {request.target.machine.name}, which "
                    "is not here: use step.lower(...).compile() to inspect it, or "
                    "target=None to run it on the default device."
                )
            typed = self._typed(args, kwargs)
            traced = self._trace(*typed)
            key = id(traced.jaxpr)
            entry = self._entry(traced, request, *typed)
            request = self._request()  # planning may have found it to do without Triton
            if entry.is_final and self._planned is not unplanned:
                given = self._delivered(entry, entry.plan, args, kwargs)
                if use.runs:
                    count = let_go((args, kwargs), given)
                    self._note_moved(count if use is Use.CALL else 0)
                return given
            if self._planned is unplanned:
                self._planned = self._new_jit(request)
            plan, planner = entry.plan, entry.planner
            platform = request.target.machine.platform
            for number in range(1, MOST_ROUNDS + 2):  # one more to give up in
                self._entries[key] = Signature(traced, plan, planner, state=entry.state)
                if plan.is_untouched and key in self._untouched_jits:
                    self._planned = self._untouched_jits[key]
                if plan.on_host and self._applies and not self._divides:
                    self._divides = True
                    self._untouched_jits.clear()  # made for the other way
                    self._planned = self._new_jit(request)
                # Before anything is moved, what the last plan had moved is let go.
                given = args, kwargs
                given = self._delivered(entry, plan, args, kwargs)
                try:
                    is_coded = use is not Use.VERIFY or request.target.is_present
                    executable = self._executable(key, plan, given, is_coded)
                    evidence = examine(executable, plan.schedule, platform, plan.copies)
                    LOGGER.info(
                        "Plan %d of %s takes %s when compiled.",
                        number,
                        self,
                        format_bytes(evidence.device_bytes),
                    )
                    following = judge(planner, plan, evidence, number, platform)
                except BaseException as error:
                    self._entries[key] = entry
                    self._planned = self._new_jit(request)
                    is_ours = isinstance(error, AutoTMError)
                    if is_ours or not isinstance(error, Exception):
                        raise
                    if self._leaves_triton(request, error):
                        return self._realise_traced(args, kwargs, use)
                    if plan.is_untouched:
                        raise
                    # The step itself was traced before: it is the plan that JAX or
                    # XLA does not take, so the step runs without it.
                    planner = None
                    plan = self._give_up(f"{type(error).__name__}: {error}")
                    continue
                if following is None:
                    shared = entry.planner is not None and entry.planner.is_shared
                    if shared:  # also where this process has given up its plan
                        check_same_plan(plan)
                    realised = Realised(
                        evidence.device_bytes,
                        evidence.host_bytes,
                        evidence.copies,
                        number,
                    )
                    plan = dataclasses.replace(plan, realised=realised)
                    self._entries[key] = Signature(
                        traced, plan, planner, is_final=True, state=entry.state
                    )
                    self._untouched_jits.pop(key, None)
                    self._uncoded.pop(key, None)
                    if use.runs:
                        count = let_go((args, kwargs), given)
                        self._note_moved(count if use is Use.CALL else 0)
                    return given
                plan = following
                # This jit has traced the plan that is given up.
                self._planned = self._new_jit(request)
            raise AssertionError("the last round either stands or raises")

    def _executable(
        self, key: int, plan: Plan, given: tuple[Any, Any], is_coded: bool
    ) -> Any:
        """What XLA makes of a plan; without code, as much as can be said of it."""
        if not is_coded and plan.is_untouched and key in self._uncoded:
            return self._uncoded[key]
        lowered = self._lowered(plan, *given)
        if is_coded:
            return lowered.compile()
        return assign(lowered, is_present=False).executable

    def _lowered(self, plan: Plan, args: Any, kwargs: Any) -> Any:
        lowered = self._planned.lower(*args, **kwargs)
        if plan.on_host and not self._is_present:
            mark_on_host(lowered, len(plan.on_host))
        return lowered

    def _delivered(
        self, entry: Signature, plan: Plan, args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        """The arguments where the plan wants them."""
        if self._divides:
            args = self._arguments.put(args, plan.on_host)
        if self._is_present and entry.state:
            known = entry.state, plan.on_host
            args, kwargs = self._arguments.settled(args, kwargs, *known)
        return self._arguments.committed(args, kwargs, plan.copies > 0)

    def _note_moved(self, count: int) -> None:
        if count and not self._has_noted_moves:
            self._has_noted_moves = True
            name = getattr(self._fun, "__name__", "the step")
            warn(
                f"{count} leaves of the state of {name} were not in the memory in "
                "which its plan has them between calls: they have been moved, as will "
                f"be others. {name}.place(...) moves a state before it is used, and "
                "autotm.on_device brings one back for other functions."
            )
