"""The costs of a program on a target: roofline seconds, compiled workspace."""

from __future__ import annotations

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


def _workspace_again(program: Program, value: int, segments: tuple[Cost, ...]) -> int:
    # A value made by its segment's kernel needs that segment's workspace again; one
    # that is fused needs what feeds the kernels among its equations.
    producer = program.values[value].producer
    assert producer is not None
    equation = program.equations[producer]
    if equation.kind is Kind.KERNEL:
        return max(0, segments[equation.home].workspace)
    return estimate(program, program.recomputations[value])
