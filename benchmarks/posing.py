"""The placement problem of a workload, posed without compiling the whole step."""

from __future__ import annotations

import jax

import autotm_jax
from autotm_jax import SolverOptions
from autotm_jax.candidate import Candidate
from autotm_jax.solve import (
    Problem,
    Schedule,
    offload_everything,
    recompute_everything,
    replay,
)
from autotm_jax.trace import Program, build_program

from .workloads import Workload


def traced(workload: Workload) -> Program:
    """The step of a workload as a `Program`, in the order that is planned first."""
    step = jax.jit(workload.step, donate_argnums=workload.donate_argnums)
    found = step.trace(*workload.args)
    infos = jax.tree.leaves(found.args_info, is_leaf=lambda x: hasattr(x, "donated"))
    return build_program(found.jaxpr, [info.donated for info in infos])


def candidate(
    program: Program,
    target: autotm_jax.Target,
    options: SolverOptions | None = None,
) -> Candidate:
    """A program to be priced by the description of a target.

    **Arguments:**

    - `program`: what runs.
    - `target`: where, with all of its host memory.
    - `options`: what the solver may take.

    **Returns:**

    A `Candidate`. Its seconds are modelled, its workspaces XLA's.
    """
    host = target.machine.host_bytes or 2**62
    return Candidate(program, target, host, options or SolverOptions())


def least_bytes(problem: Problem, found: Schedule | None) -> int:
    """The least device bytes of temporaries of any plan at hand.

    **Arguments:**

    - `problem`: the placement problem.
    - `found`: what a search for the least came to, if to anything.

    **Returns:**

    Bytes: of that, or of a policy that needs no solver if it takes less.
    """
    plans = [offload_everything(problem), recompute_everything(problem)]
    if found is not None:
        plans.append(found)
    return min(replay(problem, plan).device_peak for plan in plans)
