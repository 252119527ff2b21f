"""The whole step against the sum of its segments.

Segments are timed one by one; in the step they run after each other, and XLA may order
and overlap them. How far their sum is from the step, cut as planned steps are, says how
far a prediction made of it may be off. The step as it was traced is timed as well.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .compile import compiler_options
from .emit import emit
from .machine import machine_of
from .profile import Profile, cache, profile
from .profile.alone import random_inputs
from .profile.estimate import segment_seconds
from .profile.profiler import device_name
from .profile.timing import Protocol, Timing, measure
from .solve import Schedule
from .trace import Order, Program, build_program


_PROTOCOL = Protocol(time_limit=10.0, most=30)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A measured step and its measured segments.

    - `step`: the timing of the step, cut at every segment; `None` if it did not run.
    - `untouched`: of the step as it was traced.
    - `segments`: seconds of its segments together.
    - `failure`: why the step did not run.
    """

    step: Timing | None
    untouched: Timing | None
    segments: float
    failure: str | None = None

    @property
    def ratio(self) -> float | None:
        """The sum of the segments as a fraction of the step that is cut."""
        return None if self.step is None else self.segments / self.step.seconds

    def __str__(self) -> str:
        together = f"segments together {self.segments * 1e3:,.2f} ms"
        if self.step is None or self.untouched is None:
            return f"{together}; the step was not timed: {self.failure}"
        return (
            f"{together}, {self.ratio:.3f} of the step cut at each: "
            f"{self.step.seconds * 1e3:,.2f} ms measured "
            f"({self.untouched.seconds * 1e3:,.2f} ms as traced)"
        )


def program_of(
    fun: Callable[..., Any], args: Sequence[Any], donate_argnums: Sequence[int] = ()
) -> Program:
    """The program of a step, in the order in which it is traced.

    **Arguments:**

    - `fun`, `args`: the step and its arguments, which may be `jax.ShapeDtypeStruct`s.
    - `donate_argnums`: as those of `jax.jit`.

    **Returns:**

    A `Program`.
    """
    traced = jax.jit(fun, donate_argnums=tuple(donate_argnums)).trace(*args)
    infos = jax.tree.leaves(traced.args_info, is_leaf=lambda x: hasattr(x, "donated"))
    return build_program(traced.jaxpr, [i.donated for i in infos], Order.AS_TRACED)


def calibrate(
    fun: Callable[..., Any],
    args: Sequence[Any],
    donate_argnums: Sequence[int] = (),
    progress: bool | None = None,
    time_limit: float = math.inf,
) -> tuple[Profile, Calibration]:
    """Times a step and each kind of its segments on the default device.

    **Arguments:**

    - `fun`: the step.
    - `args`: its arguments; where they are `jax.ShapeDtypeStruct`s, random arrays.
    - `donate_argnums`: of the step that is cut into segments. The step that is timed
        donates nothing, so that its arguments last.
    - `progress`: show a progress bar; by default where standard error is a terminal.
    - `time_limit`: seconds after which no more segments are timed.

    **Returns:**

    The `Profile` and the `Calibration`.
    """
    program = program_of(fun, args, donate_argnums)
    bodies = [s.body for s in program.segments]
    found = profile(program, bodies, progress=progress, time_limit=time_limit)
    together = sum(segment_seconds(program, found))
    try:
        given = _concrete(args)
        flat = jax.tree.leaves(given)
        cut = jax.jit(emit(program, Schedule())).lower(*flat)
        compiled = cut.compile(
            compiler_options(machine_of(jax.local_devices()[0]).platform)
        )
        plain = jax.jit(fun).lower(*given).compile()
        with cache.alone(device_name()):
            step = measure(compiled, [flat], _PROTOCOL)
            untouched = measure(plain, [given], _PROTOCOL)
    except Exception as error:  # noqa: BLE001 - too large, or not made to run alone
        text = str(error).strip().partition("\n")[0][:200] or "no message"
        reason = f"{type(error).__name__}: {text}"
        return found, Calibration(None, None, together, reason)
    return found, Calibration(step, untouched, together)


def _concrete(args: Sequence[Any]) -> list[Any]:
    leaves, tree = jax.tree.flatten(tuple(args))
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = [leaf for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
    made = iter(random_inputs(abstract, [place] * len(abstract), 0))
    filled = [next(made) if isinstance(x, jax.ShapeDtypeStruct) else x for x in leaves]
    return list(jax.tree.unflatten(tree, filled))
