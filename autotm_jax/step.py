"""A function with a memory budget: its plans, and the loop that realises them."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.core import Tracer

from . import compat
from .applied import AppliedPlanner
from .arguments import Arguments
from .budget import Budget, format_bytes
from .compile import (
    assign,
    compiler_options,
    device_bytes,
    examine,
    mark_on_host,
)
from .config import LOGGER, config
from .emit import emit
from .errors import (
    AutoTMError,
    TargetError,
    warn,
)
from .given import OPTIONS, GivenShardings
from .machine import Target
from .machine import target as find_target
from .plain import Plain
from .plan import Plan, Realised
from .planfile import Saved
from .planning import Planner
from .request import Request
from .residence import is_in_host_memory, is_settled, let_go
from .setting import setting_of
from .shared import check_same_plan
from .solve import Formulation, SolverOptions, Status
from .state import carried_leaves
from .stateful import StatefulPlanner
from .unsupported import why_unsupported
from .verdict import MOST_ROUNDS, judge


# JAX traces a step anew where its own settings have changed. Compiling may do that, if
# something is imported for it (a language for kernels, say): so often at most.
_TRACES = 3


class _NotPlanned(AutoTMError):
    """Raised inside a trace to say that this signature has no plan yet."""

    def __init__(self) -> None:
        super().__init__(
            "JAX traces this step anew whenever it is compiled, so no plan is ever "
            "used. Something changes JAX's settings on the way: look for "
            "jax.config.update in what the step calls."
        )


def _unplanned(*args: Any, **kwargs: Any) -> Any:
    """Stands for the planned jit before there is one."""
    del args, kwargs
    raise _NotPlanned


@dataclasses.dataclass
class _Entry:
    """What is known about one signature of a step, which is one traced jaxpr.

    JAX traces a function once per signature and context and then hands out the same
    jaxpr; `traced` keeps it alive, so that its identity is a key. `state` are the
    numbers of the flat arguments that are carried from call to call.
    """

    traced: Any
    plan: Plan
    planner: StatefulPlanner | None = None
    is_final: bool = False
    state: frozenset[int] = frozenset()


class _Use(enum.Enum):
    """What a step is planned and compiled for."""

    CALL = "call"
    PLACE = "place"
    LOWER = "lower"
    VERIFY = "verify"

    @property
    def runs(self) -> bool:
        """Whether its arguments are arrays, on a device that is here."""
        return self in (_Use.CALL, _Use.PLACE)


class Step:
    """A function with a memory budget. Made by `autotm_jax.jit`."""

    def __init__(
        self,
        fun: Callable[..., Any],
        *,
        target: Target | None,
        budget: Budget,
        host_budget: int | None,
        move_state: bool,
        measure: bool | None,
        solver: SolverOptions,
        formulation: Formulation,
        saved: Saved | None,
        jit_options: dict[str, Any],
    ):
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._given = (target, budget, host_budget, measure, solver, formulation)
        self._may_move, self._saved = move_state, saved
        self._jit_options = jit_options
        shardings = GivenShardings(jit_options)
        self._is_told = not shardings.are_places
        # Whether those are up to `jax.jit`, or done here: as they may have to be if
        # state may move, and are once a plan has some on the host.
        self._applies, self._divides = self._moves_state and bool(shardings), False
        applied = shardings if self._applies else None
        self._arguments = Arguments(fun, jit_options, applied)
        # What is traced.
        self._step = shardings.held(fun) if self._applies else fun
        self._plain = jax.jit(self._step, **jit_options)
        self._planned: Any = _unplanned
        self._entries: dict[int, _Entry] = {}
        self._untouched_jits: dict[int, Any] = {}
        # What XLA assigned to steps as they are, for a device that is not here.
        self._uncoded: dict[int, Any] = {}
        self._has_noted_moves = False
        self._lock, self._planner = threading.RLock(), 0

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
                with contextlib.suppress(_NotPlanned):
                    return self._called(args, kwargs)
                args, kwargs = self._realise(args, kwargs)
            return self._called(args, kwargs)
        except _NotPlanned:
            self._give_up("JAX traces it anew whenever it is compiled")
            return self._plain(*args, **kwargs)

    def _called(self, args: Any, kwargs: Any) -> Any:
        planned = self._planned  # first: another thread may be planning
        if self._divides and not self._arguments.are_placed(args):
            raise _NotPlanned
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
        self._prepared(args, kwargs, _Use.VERIFY)
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
        given = self._realise(args, kwargs, _Use.PLACE)
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
            raise _NotPlanned
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
            self._planned, self._divides = _unplanned, False
            self._entries.clear()
            self._untouched_jits.clear()
            self._uncoded.clear()

    @contextlib.contextmanager
    def _planning(self) -> Iterator[None]:
        """Only one thread plans."""
        with self._lock:
            before, self._planner = self._planner, threading.get_ident()
            try:
                yield
            finally:
                self._planner = before

    @property
    def _is_planning_here(self) -> bool:
        return self._planner == threading.get_ident()

    @property
    def _moves_state(self) -> bool:
        """Whether its state may be on the host between calls."""
        return self._may_move and not self._is_told

    @property
    def _is_present(self) -> bool:
        """Whether the device that it is planned for is here."""
        target, *_ = self._given
        return target is None or target.is_present

    def _request(self) -> Request:
        given, budget, host_budget, measure, solver, formulation = self._given
        target = find_target(given)
        if measure is None:
            is_alone = target.is_present and jax.process_count() == 1
            measure = is_alone and config.measure
        return Request(target, budget, host_budget, measure, solver, formulation)

    def _prepared(
        self, args: Any, kwargs: Any, use: _Use = _Use.LOWER
    ) -> tuple[Any, Any]:
        request = self._request()
        args, kwargs = self._arguments.on(request.target, args, kwargs)
        return self._realise(args, kwargs, use)

    def _new_jit(self, request: Request, moves: bool = True) -> Any:
        # A jit that has never traced anything: every signature asks for its plan.
        dropped = OPTIONS if self._divides else ()
        options = {k: v for k, v in self._jit_options.items() if k not in dropped}
        ours = compiler_options(request.target.machine.platform, moves)
        if ours:
            given = dict(options.get("compiler_options") or {})
            options["compiler_options"] = {**ours, **given}

        @functools.wraps(self._fun)
        def planned(*args: Any, **kwargs: Any) -> Any:
            return self._emitted(args, kwargs)

        return jax.jit(planned, **options)

    def _emitted(self, args: Any, kwargs: Any) -> Any:
        """Runs under the trace of the planned jit."""
        traced = self._traced(args, kwargs)
        entry = self._entries.get(id(traced.jaxpr))
        # What is not final yet is for the thread that plans: others wait for it.
        if entry is None or not (entry.is_final or self._is_planning_here):
            raise _NotPlanned
        leaves = jax.tree.leaves((args, kwargs))
        flat = [leaf for leaf in leaves if isinstance(leaf, Tracer)]
        if self._is_present and not is_settled(flat, entry.state, entry.plan.on_host):
            raise _NotPlanned
        if entry.plan.is_untouched:
            return self._step(*args, **kwargs)
        assert entry.plan.program is not None
        results = emit(entry.plan.program, entry.plan.schedule)(*flat)
        return jax.tree.unflatten(jax.tree.structure(traced.out_info), results)

    def _entry(self, traced: Any, request: Request, args: Any, kwargs: Any) -> _Entry:
        """What is known about a signature; planned now if nothing is."""
        key = id(traced.jaxpr)
        if key not in self._entries:
            planner, plan = self._first_plan(traced, request, args, kwargs)
            state = frozenset() if planner is None else frozenset(planner.carried)
            self._entries[key] = _Entry(traced, plan, planner, state=state)
        return self._entries[key]

    def _traced(self, args: Any, kwargs: Any) -> Any:
        """The step as the user wrote it, its state on the device."""
        return self._trace(*self._typed(args, kwargs))

    def _trace(self, args: Any, kwargs: Any) -> Any:
        try:
            return self._plain.trace(*args, **kwargs)
        except ValueError as error:
            if any(map(is_in_host_memory, jax.tree.leaves((args, kwargs)))):
                error.add_note(
                    "Some of the arguments are in host memory, where a step may have "
                    "left its state: autotm.on_device(...) brings them back."
                )
            raise

    def _typed(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments as the step is traced: its state on the device."""
        return self._arguments.described(*self._as_on_device(args, kwargs))

    def _as_on_device(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        leaves = jax.tree.leaves((args, kwargs))
        if not self._moves_state or not any(map(is_in_host_memory, leaves)):
            return args, kwargs
        if not any(e.plan.on_host for e in self._entries.values()):
            # Not put there by a plan: perhaps the step itself takes it from there. If
            # it was something else that failed, it fails again.
            with contextlib.suppress(Exception):
                self._plain.trace(*args, **kwargs)
                return args, kwargs
        return self._arguments.on_device(args, kwargs)

    def _first_plan(
        self, traced: Any, request: Request, args: Any, kwargs: Any
    ) -> tuple[StatefulPlanner | None, Plan]:
        unsupported = why_unsupported(traced, request, args, kwargs, self._jit_options)
        if unsupported:
            return None, self._give_up(unsupported)
        donated = [
            a.donated for a in jax.tree.leaves(traced.args_info, is_leaf=_is_arg)
        ]

        compile_plain = functools.partial(
            self._plain_bytes, traced, request, args, kwargs
        )
        places = [getattr(x, "sharding", None) for x in jax.tree.leaves((args, kwargs))]
        step = (traced.jaxpr, donated, places, sorted(self._jit_options.items()))
        plain = Plain(compile_plain, request.target, *step)
        info = traced.args_info, traced.out_info
        carried = carried_leaves(*info) if self._may_move else {}
        asked = traced.jaxpr, self._step, self._jit_options, args, kwargs
        setting = setting_of(request, *asked)

        def make(moves: Mapping[int, int], host: int | None) -> Planner:
            asked = setting.request
            if host is not None:
                asked = dataclasses.replace(asked, host_budget=host)
            rest = plain, moves, setting.divide, setting.is_shared
            return Planner(traced.jaxpr, donated, asked, *rest)

        try:
            if self._saved is not None:
                known = {} if self._is_told else carried
                planner = AppliedPlanner(make, known, self._saved)
            else:
                planner = StatefulPlanner(make, carried, self._is_told)
            LOGGER.info("Planning %s.", self)
            plan = planner.first()
            LOGGER.info("Planned:\n%s", plan)
            return planner, plan
        except AutoTMError:
            raise
        except Exception as error:  # noqa: BLE001 - the step has to run whatever fails
            return None, self._give_up(f"{type(error).__name__}: {error}")

    def _plain_bytes(
        self, traced: Any, request: Request, args: Any, kwargs: Any, to_run: bool
    ) -> int:
        key = id(traced.jaxpr)
        # Compiled through the same door as a plan, so that the executable can be
        # kept if the step turns out to fit as it is.
        before = self._entries.get(key)
        self._entries[key] = _Entry(traced, Plan(None, Status.UNTOUCHED))
        try:
            jitted = self._new_jit(request, moves=False)
            lowered = jitted.lower(*args, **kwargs)
            is_gpu = request.target.machine.platform == "cuda"
            is_present = request.target.is_present
            if is_gpu and not (to_run and is_present):
                found = assign(lowered, is_present=is_present).executable
                if not is_present:
                    self._uncoded[key] = found
                return device_bytes(found)
            compiled = lowered.compile()
        finally:
            del self._entries[key]
            if before is not None:
                self._entries[key] = before
        self._untouched_jits[key] = jitted
        return device_bytes(compiled)

    def _give_up(self, reason: str) -> Plan:
        warn(
            f"autotm cannot plan {getattr(self._fun, '__name__', 'the step')}, so it "
            f"runs as jax.jit would, without a budget: {reason}."
        )
        return Plan(None, Status.UNSUPPORTED, note=reason)

    def _realise(
        self, args: Any, kwargs: Any, use: _Use = _Use.CALL
    ) -> tuple[Any, Any]:
        """Plans, compiles and checks until the budget is kept.

        Returns the arguments to call with: see `_delivered`.
        """
        for _ in range(_TRACES - 1):
            # Unless JAX has traced it anew on the way.
            with contextlib.suppress(_NotPlanned):
                return self._realise_traced(args, kwargs, use)
        return self._realise_traced(args, kwargs, use)

    def _realise_traced(self, args: Any, kwargs: Any, use: _Use) -> tuple[Any, Any]:
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
            if entry.is_final and self._planned is not _unplanned:
                given = self._delivered(entry, entry.plan, args, kwargs)
                if use.runs:
                    count = let_go((args, kwargs), given)
                    self._note_moved(count if use is _Use.CALL else 0)
                return given
            if self._planned is _unplanned:
                self._planned = self._new_jit(request)
            plan, planner = entry.plan, entry.planner
            platform = request.target.machine.platform
            for number in range(1, MOST_ROUNDS + 2):  # one more to give up in
                self._entries[key] = _Entry(traced, plan, planner, state=entry.state)
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
                    is_coded = use is not _Use.VERIFY or request.target.is_present
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
                    if is_ours or plan.is_untouched or not isinstance(error, Exception):
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
                    self._entries[key] = _Entry(
                        traced, plan, planner, is_final=True, state=entry.state
                    )
                    self._untouched_jits.pop(key, None)
                    self._uncoded.pop(key, None)
                    if use.runs:
                        count = let_go((args, kwargs), given)
                        self._note_moved(count if use is _Use.CALL else 0)
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
        self, entry: _Entry, plan: Plan, args: Any, kwargs: Any
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


def _is_arg(leaf: Any) -> bool:
    return hasattr(leaf, "donated")
