"""The placement problem of a network on a GPU whose kernels read its own memory only.

Nothing is compiled: times are a roofline's, and a segment's workspace is what its fused
work hands to its kernels. As in AutoTM, arguments and results stay on the device, and
what they take is off the limit. A copy begins when it may: how early XLA would start
it, as on the GPUs that were measured, is no part of this machine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from autotm_jax.formulate import formulate
from autotm_jax.machine import Machine, describe
from autotm_jax.profile import Cost, Costs
from autotm_jax.profile.roofline import seconds
from autotm_jax.profile.workspace import estimate
from autotm_jax.solve import Problem, Schedule, replay
from autotm_jax.trace import Fragment, Program, backward_segments

from ..posing import traced
from ..workloads import Workload


MACHINE = dataclasses.replace(describe("rtx-2080-ti"), copy_reach=math.inf)

OVERHEAD = 800_000_000
"""Bytes of the device that no step gets, by the authors' code: what CUDA takes."""

CONVOLUTION = "conv_general_dilated"

CONTRACTIONS = (CONVOLUTION, "dot_general")
"""Primitives whose results `jax.checkpoint_policies.dots_saveable` keeps."""


@dataclasses.dataclass(frozen=True, eq=False)
class OnDevice:
    """A step on a GPU.

    - `name`: of the workload.
    - `problem`: its limit is what the overhead, arguments and results leave.
    - `peak`: the most bytes of values and workspace at a time if nothing moves.
    - `convolutions`: segments that convolve, forward and backward.
    - `contractions`: tensors that contractions make, as positions in
        `problem.tensors`.
    - `backward`: the first segment of the backward pass.
    """

    name: str
    problem: Problem
    peak: int
    convolutions: frozenset[int]
    contractions: frozenset[int]
    backward: int

    @property
    def fits(self) -> bool:
        """Whether nothing has to move."""
        return self.peak <= self.problem.device_limit


def on_device(
    workload: Workload,
    machine: Machine = MACHINE,
    nbytes: int = MACHINE.device_bytes - OVERHEAD,
) -> OnDevice:
    """Poses the problem of a workload on a GPU.

    **Arguments:**

    - `workload`: a step without loops.
    - `machine`: arithmetic, memory, and the link to the host.
    - `nbytes`: what the device has for arguments, results and everything else.

    **Returns:**

    The step `OnDevice`.
    """
    program = traced(workload)
    assert not program.loops
    results, aliased = program.result_bytes()
    limit = nbytes - program.argument_bytes() - (results - aliased)
    host = machine.host_bytes or 2**62
    problem = formulate(program, _costs(program, machine), machine, limit, host)
    equations = program.equations
    names = [equation.eqn.primitive.name for equation in equations]
    makers = [program.values[tensor.value].producer for tensor in problem.tensors]

    def segments(is_one: Callable[[int], bool]) -> list[int]:
        every = program.segments
        return [s.index for s in every if any(map(is_one, s.body.equations))]

    return OnDevice(
        workload.name,
        problem,
        replay(problem, Schedule()).device_peak,
        frozenset(segments(lambda i: names[i] == CONVOLUTION)),
        frozenset(
            tensor
            for tensor, maker in enumerate(makers)
            if maker is not None and names[maker] in CONTRACTIONS
        ),
        backward_segments(program)[0],
    )


def _costs(program: Program, machine: Machine) -> Costs:
    modelled: dict[str, float] = {}

    def time(fragment: Fragment) -> float:
        if fragment.signature not in modelled:
            modelled[fragment.signature] = seconds(program, fragment, machine)
        return modelled[fragment.signature]

    def cost(fragment: Fragment) -> Cost:
        return Cost(time(fragment), estimate(program, fragment).nbytes)

    bodies = [segment.body for segment in program.segments]
    return Costs(
        tuple(map(cost, bodies)),
        {value: cost(again) for value, again in program.recomputations.items()},
        {
            (value, at): max(0.0, time(joined) - time(bodies[at]))
            for (value, at), joined in program.joined.items()
        },
        f"roofline of {machine.name}, modelled",
        "estimated",
    )
