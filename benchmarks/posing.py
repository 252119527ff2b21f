"""The placement problem of a workload, posed without compiling the whole step."""

from __future__ import annotations

import jax

import autotm_jax
from autotm_jax import SolverOptions
from autotm_jax.candidate import Candidate
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
