"""The plans of a function with a memory budget, and the functions that they make.

A signature is planned when it is first asked for. `jax.jit` finds the plan while it
traces: a jit that has traced nothing yet asks for each, and gets what is emitted by it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.core import Tracer

from . import compat
from .applied import AppliedPlanner
from .arguments import Arguments
from .budget import Budget
from .compile import WITHOUT_TRITON, assign, compiler_options, device_bytes
from .config import LOGGER, config
from .emit import emit
from .errors import AutoTMError, warn
from .given import OPTIONS, GivenShardings
from .machine import Target
from .machine import target as find_target
from .plain import Plain
from .plan import Plan
from .planfile import Saved
from .planning import Planner
from .request import Request
from .residence import is_in_host_memory, is_settled
from .setting import setting_of
from .signature import NotPlanned, Signature, unplanned
from .solve import Formulation, SolverOptions, Status
from .state import carried_leaves
from .stateful import StatefulPlanner
from .unsupported import why_unsupported


class PlannedFunction:
    """A function, and a plan for each of its signatures."""

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
        self._planned: Any = unplanned
        self._entries: dict[int, Signature] = {}
        self._untouched_jits: dict[int, Any] = {}
        # What XLA assigned to steps as they are, for a device that is not here.
        self._uncoded: dict[int, Any] = {}
        self._has_noted_moves, self._uses_triton = False, True
        self._lock, self._planner = threading.RLock(), 0

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
        if not self._uses_triton:
            target = dataclasses.replace(target, uses_triton=False)
        if measure is None:
            is_alone = target.is_present and jax.process_count() == 1
            measure = is_alone and config.measure
        return Request(target, budget, host_budget, measure, solver, formulation)

    def _new_jit(self, request: Request, moves: bool = True) -> Any:
        # A jit that has never traced anything: every signature asks for its plan.
        dropped = OPTIONS if self._divides else ()
        options = {k: v for k, v in self._jit_options.items() if k not in dropped}
        target = request.target
        ours = compiler_options(target.machine.platform, moves, target.uses_triton)
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
            raise NotPlanned
        leaves = jax.tree.leaves((args, kwargs))
        flat = [leaf for leaf in leaves if isinstance(leaf, Tracer)]
        if self._is_present and not is_settled(flat, entry.state, entry.plan.on_host):
            raise NotPlanned
        if entry.plan.is_untouched:
            return self._step(*args, **kwargs)
        assert entry.plan.program is not None
        results = emit(entry.plan.program, entry.plan.schedule)(*flat)
        return jax.tree.unflatten(jax.tree.structure(traced.out_info), results)

    def _entry(
        self, traced: Any, request: Request, args: Any, kwargs: Any
    ) -> Signature:
        """What is known about a signature; planned now if nothing is."""
        key = id(traced.jaxpr)
        if key not in self._entries:
            planner, plan = self._first_plan(traced, request, args, kwargs)
            state = frozenset() if planner is None else frozenset(planner.carried)
            self._entries[key] = Signature(traced, plan, planner, state=state)
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
            if self._leaves_triton(request, error):
                return self._first_plan(traced, self._request(), args, kwargs)
            return None, self._give_up(f"{type(error).__name__}: {error}")

    def _plain_bytes(
        self, traced: Any, request: Request, args: Any, kwargs: Any, to_run: bool
    ) -> int:
        key = id(traced.jaxpr)
        # Compiled through the same door as a plan, so that the executable can be
        # kept if the step turns out to fit as it is.
        before = self._entries.get(key)
        self._entries[key] = Signature(traced, Plan(None, Status.UNTOUCHED))
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

    def _leaves_triton(self, request: Request, error: Exception) -> bool:
        """Whether what failed is planned again, without matmuls by Triton.

        With it all other signatures are, as they are compiled with the same options.
        """
        target = request.target
        if target.is_present or not target.uses_triton or not compat.lacks_tiles(error):
            return False
        given = self._jit_options.get("compiler_options") or {}
        if any(option in given for option in WITHOUT_TRITON):
            return False  # it is up to the user
        warn(
            f"JAX {compat.JAX_VERSION} cannot compile a matmul of "
            f"{getattr(self._fun, '__name__', 'the step')} for {target.machine.name} "
            "as it would where that is: Triton would write it, and tries out tiles for "
            "that. So it is compiled without Triton, which takes somewhat more or less "
            "memory than with it. JAX 0.12 has no need to."
        )
        self._forget()
        self._uses_triton = False
        return True

    def _forget(self) -> None:
        """Forgets every plan and executable."""
        self._planned, self._divides = unplanned, False
        self._entries.clear()
        self._untouched_jits.clear()
        self._uncoded.clear()

    def _give_up(self, reason: str) -> Plan:
        warn(
            f"autotm cannot plan {getattr(self._fun, '__name__', 'the step')}, so it "
            f"runs as jax.jit would, without a budget: {reason}."
        )
        return Plan(None, Status.UNSUPPORTED, note=reason)


def _is_arg(leaf: Any) -> bool:
    return hasattr(leaf, "donated")
