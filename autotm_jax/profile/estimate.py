"""The costs of a program on a target: roofline seconds, compiled workspace."""

from __future__ import annotations

from collections.abc import Sequence

from ..machine import Target
from ..trace import Fragment, Kind, Program
from .costs import Cost, Costs
from .roofline import seconds
from .workspace import Probe, estimate, workspaces


def estimate_costs(program: Program, target: Target) -> Costs:
    """Prices every segment and every recomputation of a program.

    **Arguments:**

    - `program`: what runs.
    - `target`: where.

    **Returns:**

    `Costs`.
    """
    probes = [Probe(s.body, frozenset(s.dying)) for s in program.segments]
    memory, source = workspaces(program, probes, target)
    times: dict[str, float] = {}

    def time(fragment: Fragment) -> float:
        if fragment.signature not in times:
            times[fragment.signature] = seconds(program, fragment, target.machine)
        return times[fragment.signature]

    segments = tuple(
        Cost(time(probe.fragment), workspace)
        for probe, workspace in zip(probes, memory, strict=True)
    )
    again = {
        value: Cost(time(fragment), _workspace_again(program, value, segments))
        for value, fragment in program.recomputations.items()
    }
    joined = {
        (value, k): max(0.0, time(fragment) - segments[k].seconds)
        for (value, k), fragment in program.joined.items()
    }
    machine = target.machine
    return Costs(
        segments,
        again,
        joined,
        f"roofline of {machine.name} ({machine.source}), modelled",
        source,
    )


def joined_bytes(
    program: Program, costs: Costs, pairs: Sequence[tuple[int, int]], target: Target
) -> dict[int, int]:
    """What joining recomputations with segments changes in the segments' workspace.

    A plan counts a segment and a value that is computed again for it as if they were
    apart. Where XLA fuses them it may need less, or more.

    **Arguments:**

    - `program`, `costs`: what runs.
    - `pairs`: values and segments, in `program.joined`.
    - `target`: where.

    **Returns:**

    Bytes by segment; nothing on a CPU, whose compiler says nothing about it.
    """
    if target.machine.platform == "cpu" or not pairs:
        return {}
    touches = program.touches()
    kept = program.resident | program.returned
    probes = []
    for value, k in pairs:
        fragment = program.joined[value, k]
        dying = (v for v in fragment.reads if v not in kept and touches[v][-1] <= k)
        probes.append(Probe(fragment, frozenset(dying)))
    found, _ = workspaces(program, probes, target)
    out: dict[int, int] = {}
    for (value, k), workspace in zip(pairs, found, strict=True):
        is_counted = value not in program.joined[value, k].writes
        is_counted &= not program.dissolves(value, k)
        counted = program.values[value].nbytes if is_counted else 0
        change = workspace - costs.segments[k].workspace - counted
        out[k] = out.get(k, 0) + change
    return out


def _workspace_again(program: Program, value: int, segments: tuple[Cost, ...]) -> int:
    # A value made by its segment's kernel needs that segment's workspace again; one
    # that is fused needs what feeds the kernels among its equations.
    producer = program.values[value].producer
    assert producer is not None
    equation = program.equations[producer]
    if equation.kind is Kind.KERNEL:
        return max(0, segments[equation.home].workspace)
    return estimate(program, program.recomputations[value])
