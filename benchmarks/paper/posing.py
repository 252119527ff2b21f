"""The placement problem of a network on a machine whose kernels read slow memory.

Nothing is compiled. A segment is a kernel, whose time a roofline says for every choice
of the tensors that it finds in slow memory, or leaves there: AutoTM's IO
configurations. What is made and read within one segment stays in caches, as in kernels
with a prologue and an epilogue, so that no kernel has a workspace; AutoTM's have none
on a CPU. As there, tensors are moved and never computed again, and arguments and
results are in fast memory and not counted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from autotm_jax.formulate import formulate
from autotm_jax.machine import Machine, describe
from autotm_jax.profile import Cost, Costs
from autotm_jax.profile.roofline import kernel_seconds, passes
from autotm_jax.simulate import OPTANE, Kernel, Memories, Pass, placements
from autotm_jax.solve import Configuration, Problem, Schedule, replay
from autotm_jax.trace import Kind, Program, Segment

from ..posing import traced
from ..workloads import Workload


MACHINE = describe("optane-host")

# At most so many configurations of a group of tensors that a kernel's time joins.
_MOST = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Posed:
    """A step on a machine whose kernels read both memories.

    - `name`: of the workload.
    - `problem`: its limit is what all of its values take.
    - `kernels`: of the segments.
    - `memories`: where they run.
    - `peak`: the most bytes of values at a time.
    - `program`: what the values are.
    """

    name: str
    problem: Problem
    kernels: tuple[Kernel, ...]
    memories: Memories
    peak: int
    program: Program

    def on(self, memories: Memories) -> Posed:
        """The same step with other memories."""
        problem = dataclasses.replace(
            self.problem,
            compute=tuple(kernel.time(memories) for kernel in self.kernels),
            configurations={
                k: found
                for k, kernel in enumerate(self.kernels)
                if (found := configurations(kernel, memories))
            },
            link=dataclasses.replace(
                self.problem.link, d2h=memories.out, h2d=memories.into
            ),
        )
        return dataclasses.replace(self, problem=problem, memories=memories)

    def without_overlap(self) -> Posed:
        """The same step if arithmetic did not run beside memory traffic."""
        kernels = tuple(kernel.without_overlap() for kernel in self.kernels)
        return dataclasses.replace(self, kernels=kernels).on(self.memories)

    def limit(self, ratio: float) -> int:
        """Bytes of fast memory, if there is `ratio` times as much slow memory."""
        return int(self.peak / (ratio + 1))

    def within(self, limit: float) -> Problem:
        """The problem with a limit of fast memory."""
        return dataclasses.replace(self.problem, device_limit=limit)


def posed(
    workload: Workload, memories: Memories = OPTANE, machine: Machine = MACHINE
) -> Posed:
    """Poses the problem of a workload.

    **Arguments:**

    - `workload`: a step without loops.
    - `memories`: as kernels see them.
    - `machine`: arithmetic and the latencies of kernels and copies.

    **Returns:**

    A `Posed` step.
    """
    program = traced(workload)
    assert not program.loops
    # Memory traffic is priced by pass, where the tensors are.
    machine = dataclasses.replace(
        machine, device_bandwidth=math.inf, duplex_bandwidth=math.inf
    )
    free = Costs(tuple(Cost(0.0, 0) for _ in program.segments), {}, {}, "", "")
    problem = formulate(program, free, machine, math.inf, math.inf)
    position = {t.value: i for i, t in enumerate(problem.tensors)}
    kernels = tuple(_kernel(program, s, position, machine) for s in program.segments)
    peak = replay(problem, Schedule()).device_peak
    found = Posed(workload.name, problem, kernels, memories, peak, program)
    return found.on(memories)


def configurations(kernel: Kernel, memories: Memories) -> tuple[Configuration, ...]:
    """A kernel's IO configurations but for the one with everything in fast memory.

    Tensors that add to its time independently are different parts of it.
    """
    fast = kernel.time(memories)
    return tuple(
        Configuration(slow, kernel.time(memories, slow) - fast, 0, part)
        for part, group in enumerate(kernel.groups(memories))
        for slow in placements(group, _MOST)
    )


@dataclasses.dataclass
class _Step:
    """A heavy operation, or fused work and reductions in one pass.

    Bytes that it reads and writes are by value.
    """

    seconds: float
    reads: dict[int, int]
    writes: dict[int, int]
    is_heavy: bool

    @property
    def values(self) -> set[int]:
        return {*self.reads, *self.writes}

    def join(self, other: _Step) -> None:
        self.reads = other.reads | self.reads
        self.writes = other.writes | self.writes


def _kernel(
    program: Program, segment: Segment, position: Mapping[int, int], machine: Machine
) -> Kernel:
    known = {*segment.body.reads, *segment.body.writes} | program.resident
    steps = _joined(_steps(program, segment, machine), known)
    return Kernel(
        tuple(_pass(step, known, position) for step in steps),
        machine.launch_overhead * max(1, len(steps)),
    )


def _steps(program: Program, segment: Segment, machine: Machine) -> list[_Step]:
    body = segment.body
    equations = [program.equations[i] for i in body.equations]
    size = {v: program.values[v].nbytes for v in (*body.reads, *program.resident)}
    size |= {v: program.values[v].nbytes for e in equations for v in e.outputs}
    made = {v for e in equations if e.kind is not Kind.KERNEL for v in e.outputs}
    rest: list[_Step] = []
    written = set(body.writes)
    for values in passes(program, body, equations):
        writes = values & made
        made -= writes  # a later pass reads them
        written |= writes
        reads = {v: size[v] for v in values - writes}
        rest.append(_Step(0.0, reads, {v: size[v] for v in writes}, False))
    heavy: list[_Step] = []
    roots: dict[int, set[int]] = {}
    for equation in equations:
        found = [(v, roots.get(v, {v})) for v in equation.operands]
        if equation.kind is Kind.KERNEL:
            # Of what an operand is only a view or a part of, no more than that.
            reads = {r: min(size[r], size[v]) for v, every in found for r in every}
            seconds = kernel_seconds(program, equation, machine)
            writes = {v: size[v] for v in equation.outputs}
            heavy.append(_Step(seconds, reads, writes, True))
            continue
        origin = set().union(*(every for _, every in found))
        for output in equation.outputs:
            roots[output] = {output} if output in written else origin
    return heavy + rest


def _joined(steps: Sequence[_Step], known: set[int]) -> list[_Step]:
    """An operation, with what is fused to it, is one step.

    That is what it hands a value that goes nowhere else, or gets one from. Passes stay
    apart: what one of them reduces has to be complete for the next.
    """
    rest = [s for s in steps if not s.is_heavy]
    out: list[_Step] = []
    for step in (s for s in steps if s.is_heavy):
        own = step.values - known
        fused = [s for s in rest if not own.isdisjoint(s.values)]
        rest = [s for s in rest if s not in fused]
        for other in fused:
            step.join(other)
        out.append(step)
    return out + rest


def _pass(step: _Step, known: set[int], position: Mapping[int, int]) -> Pass:
    def tensors(values: Mapping[int, int]) -> dict[int, int]:
        return {position[v]: n for v, n in sorted(values.items()) if v in position}

    def others(values: Mapping[int, int]) -> int:
        return sum(n for v, n in values.items() if v in known and v not in position)

    return Pass(
        step.seconds,
        tensors(step.reads),
        tensors(step.writes),
        others(step.reads),
        others(step.writes),
    )
