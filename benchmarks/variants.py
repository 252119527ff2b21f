"""What the variants of a step's segments take, and what picking them saves.

`python -m benchmarks.variants` prints, for each kind of segment that has variants, the
seconds and the workspace of each, then what the whole step needs on an H100 when its
segments run by the default, when the loss layer runs by the variant with the least
workspace, and when every segment does: with all values on the device, and with every
one moved to the host as soon as it may be. No GPU is needed: bytes are those of
compiled executables, seconds are modelled.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


if __name__ == "__main__":
    # Before JAX starts: the target is compiled for, nothing runs.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax

import autotm_jax as autotm
from autotm_jax.candidate import Candidate
from autotm_jax.compile import compiler_options
from autotm_jax.emit import emit
from autotm_jax.solve import Pick, Schedule, offload_everything, replay
from autotm_jax.trace import Program, Segment, build_program

from . import workloads


MIB = 2**20


def program_of(workload: workloads.Workload) -> Program:
    """The step of a workload as a program."""
    step = jax.jit(workload.step, donate_argnums=workload.donate_argnums)
    traced = step.trace(*workload.args)
    infos = jax.tree.leaves(traced.args_info, is_leaf=lambda x: hasattr(x, "donated"))
    return build_program(traced.jaxpr, [i.donated for i in infos])


def frugal(
    candidate: Candidate, choose: Callable[[Segment], bool] = lambda segment: True
) -> Schedule:
    """The schedule that only picks: the least workspace, for segments to choose.

    **Arguments:**

    - `candidate`: the step.
    - `choose`: says of a segment with variants whether it may run by another.

    **Returns:**

    A `Schedule`.
    """
    picks = []
    for segment in candidate.program.segments:
        others = candidate.problem.variants.get(segment.index, ())
        ways = [candidate.problem.workspace[segment.index]]
        ways += [variant.workspace for variant in others]
        least = ways.index(min(ways))
        if least and choose(segment):
            picks.append(Pick(segment.index, least))
    return Schedule(picks=tuple(picks))


def is_loss(segment: Segment) -> bool:
    """Whether a segment is the loss layer's, forward or backward."""
    return any("cross_entropy" in branch.of for branch in segment.body.branches)


def compiled_bytes(program: Program, schedule: Schedule, target: autotm.Target) -> int:
    """Device bytes of a program under a schedule, compiled for a target."""
    avals = [program.values[a].aval for a in program.arguments]
    shapes = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=target.sharding) for a in avals
    ]
    donated = tuple(n for n, d in enumerate(program.donated) if d)
    lowered = jax.jit(emit(program, schedule), donate_argnums=donated).lower(*shapes)
    return autotm.device_bytes(
        lowered.compile(compiler_options(target.machine.platform))
    )


def kinds(candidate: Candidate) -> list[tuple[Any, ...]]:
    """One row for each way to run each kind of segment that has variants.

    **Arguments:**

    - `candidate`: the step.

    **Returns:**

    Tuples of what is computed, by what, in how many segments, seconds and bytes.
    """
    program, costs = candidate.program, candidate.costs
    count: dict[str, int] = {}
    first: dict[str, int] = {}
    for segment in program.segments:
        if segment.body.branches:
            kind = segment.body.signature
            count[kind] = count.get(kind, 0) + 1
            first.setdefault(kind, segment.index)
    rows = []
    for kind, k in first.items():
        of = program.segments[k].body.branches[0].of
        ways = [("the default", costs.segments[k]), *costs.variants[k]]
        rows += [(of, name, count[kind], c.seconds, c.workspace) for name, c in ways]
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--workload", default="gpt-12-variants")
    parser.add_argument("--target", default="h100-sxm")
    options = parser.parse_args(arguments)
    target = autotm.target(options.target)
    program = program_of(workloads.get(options.workload))
    host = target.machine.host_bytes or 2**62
    candidate = Candidate(program, target, host, autotm.SolverOptions())
    print(f"{options.workload}, compiled for {target.machine.name}; seconds modelled")
    print(f"\n{'segment':<26}{'by':<16}{'segments':>9}{'ms':>9}{'workspace MiB':>15}")
    for of, name, count, seconds, nbytes in kinds(candidate):
        ms, mib = seconds * 1e3, nbytes / MIB
        print(f"{of:<26}{name:<16}{count:>9}{ms:>9.2f}{mib:>15,.0f}")
    for reason, count in sorted(candidate.costs.left_out.items()):
        print(f"left out: {count} x {reason}")
    head = f"{'model ms':>9}{'predicted MiB':>15}{'compiled MiB':>15}"
    print(f"\n{'moved':<14}{'picked':<18}{head}")
    picked = {
        "nothing": (),
        "the loss layer": frugal(candidate, is_loss).picks,
        "all": frugal(candidate).picks,
    }
    moved = {"nothing": Schedule(), "everything": offload_everything(candidate.problem)}
    for what, copies in moved.items():
        for title, picks in picked.items():
            schedule = dataclasses.replace(copies, picks=picks)
            ms = replay(candidate.problem, schedule).makespan * 1e3
            predicted = candidate.fixed_bytes + candidate.allocation(schedule)
            found = compiled_bytes(candidate.program, schedule, target)
            row = f"{ms:>9.1f}{predicted / MIB:>15,.0f}{found / MIB:>15,.0f}"
            print(f"{what:<14}{title:<18}{row}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
