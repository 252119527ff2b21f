"""Modelled time of a step that `autotm.jit` had no part in.

The same roofline that prices a plan prices the step as it was traced, with every
`jax.checkpoint` region written out, so that what it computes again is counted. Copies
between device and host are not counted: a step that has some is not priced.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.extend.core as jex_core

import autotm_jax
from autotm_jax import compat
from autotm_jax.profile.roofline import seconds
from autotm_jax.trace import build_program

from .workloads import Workload


# What `jax.checkpoint` is called in a jaxpr, by newer and older JAX.
_CHECKPOINT = ("remat2", "checkpoint")


def compute_seconds(workload: Workload, target: autotm_jax.Target) -> float | None:
    """Seconds of a step on a target, by its roofline.

    **Arguments:**

    - `workload`: whose step.
    - `target`: where it would run.

    **Returns:**

    Seconds, or `None` if the step copies between device and host.
    """
    step = jax.jit(workload.step, donate_argnums=workload.donate_argnums)
    traced = step.trace(*workload.args)

    def written_out(*args: Any) -> list[Any]:
        constvars, constants = compat.constants_of(traced.jaxpr)
        known = dict(zip(constvars, constants, strict=True))
        return _run(traced.jaxpr.jaxpr, known, args)

    closed = compat.jaxpr_of_function(written_out, *jax.tree.leaves(workload.args))
    if _copies(closed.jaxpr):
        return None
    infos = jax.tree.leaves(traced.args_info, is_leaf=lambda x: hasattr(x, "donated"))
    program = build_program(closed, [info.donated for info in infos])
    times = zip(program.repeats, program.segments, strict=True)
    return sum(n * seconds(program, s.body, target.machine) for n, s in times)


def _copies(jaxpr: Any) -> bool:
    # Also in the body of a loop.
    return any(
        eqn.primitive.name == "device_put"
        or any(_copies(inner) for inner in jex_core.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def _run(jaxpr: Any, env: dict[Any, Any], args: Any) -> list[Any]:
    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex_core.Literal) else env[atom]

    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        if eqn.primitive.name in _CHECKPOINT:
            outputs = _run(eqn.params["jaxpr"], {}, operands)
        else:
            outputs = compat.bind(eqn, *operands)
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]
