"""The costs of a program on a target: roofline seconds, compiled workspace."""

from __future__ import annotations

from ..machine import Target
from ..trace import Program
from .costs import Cost, Costs
from .roofline import seconds
from .workspace import Probe, workspaces


def estimate_costs(program: Program, target: Target) -> Costs:
    """Prices every segment and every recomputation of a program.

    **Arguments:**

    - `program`: what runs.
    - `target`: where.

    **Returns:**

    `Costs`.
    """
    probes = [Probe(s.body, frozenset(s.dying)) for s in program.segments]
    # A value is computed again where others still need its roots.
    again = {
        value: Probe(fragment, frozenset())
        for value, fragment in program.recomputations.items()
    }
    memory, source = workspaces(program, [*probes, *again.values()], target)
    cache: dict[str, float] = {}

    def time(probe: Probe) -> float:
        signature = probe.fragment.signature
        if signature not in cache:
            cache[signature] = seconds(program, probe.fragment, target.machine)
        return cache[signature]

    costs = [
        Cost(time(probe), workspace)
        for probe, workspace in zip([*probes, *again.values()], memory, strict=True)
    ]
    machine = target.machine
    return Costs(
        tuple(costs[: len(probes)]),
        dict(zip(again, costs[len(probes) :], strict=True)),
        f"roofline of {machine.name} ({machine.source}), modelled",
        source,
    )
