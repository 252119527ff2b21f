"""The costs of a program on a target: measured or roofline seconds, and workspace.

Where the target is here, segments and recomputations are timed. What cannot be timed,
and what a recomputation adds to the segment it joins, is the roofline's figure times
the ratio of all that was timed to its roofline.
"""

from __future__ import annotations

import dataclasses

from ..machine import Target
from ..machine import target as find_target
from ..trace import Fragment, Kind, Planned, Program, is_conditional
from .costs import Cost, Costs, Streaming
from .overwriting import segment_workspaces, ways_to_run
from .profiler import Profile, profile
from .roofline import seconds
from .streaming import streaming
from .workspace import estimate


def estimate_costs(
    program: Program,
    target: Target,
    measured: bool = False,
    streams: bool = False,
) -> Costs:
    """Prices every segment, its variants, and every recomputation of a program.

    **Arguments:**

    - `program`: what runs.
    - `target`: where.
    - `measured`: time it on the target, which has to be here.
    - `streams`: also price segments with operands and results on the host.

    **Returns:**

    `Costs`.
    """
    workspace, overwriting, source = segment_workspaces(
        program, target, always=measured
    )
    times = _Times(program, target)
    if measured:
        bodies = [s.body for s in program.segments]
        fragments = [f for s in program.segments for f in ways_to_run(s)]
        times.measure([*fragments, *program.recomputations.values()], bodies)
    time = times.of

    def cost(fragment: Fragment) -> Cost:
        found = workspace[fragment]
        found = estimate(program, fragment) if isinstance(found, str) else found
        source, timeline = times.source_of(fragment), found.timeline
        if timeline is not None:
            timeline = timeline.named(fragment.reads, fragment.writes)
        return Cost(time(fragment), found.nbytes, source, timeline)

    segments = tuple(cost(s.body) for s in program.segments)
    variants: dict[int, tuple[tuple[str, Cost], ...]] = {}
    left_out = dict(program.left_out)
    for k, body in enumerate(s.body for s in program.segments):
        for branch in body.branches:
            found = workspace[branch.fragment]
            reason = times.failure(branch.fragment, body)
            reason = found if isinstance(found, str) else reason
            if reason is None:
                priced = cost(branch.fragment)
                priced = _as_planned(priced, segments[k], branch.planned)
                variants[k] = (*variants.get(k, ()), (branch.name, priced))
            else:
                said = f"{branch.title}: {reason}"
                left_out[said] = left_out.get(said, 0) + 1
    again = {
        value: Cost(
            time(fragment),
            _workspace_again(program, value, segments),
            times.source_of(fragment),
        )
        for value, fragment in program.recomputations.items()
    }
    joined = {
        (value, k): times.added(fragment, program.segments[k].body)
        for (value, k), fragment in program.joined.items()
    }
    streamed = _streamed(program, target, measured) if streams else {}
    sources = times.source, source, times.failures
    rest = measured, streamed, variants, left_out, overwriting
    return Costs(segments, again, joined, *sources, *rest)


def _as_planned(cost: Cost, default: Cost, planned: Planned | None) -> Cost:
    """The cost of a branch with what is known better if it runs by a plan."""
    if planned is None:
        return cost
    seconds = default.seconds + planned.added
    return dataclasses.replace(cost, seconds=seconds, host_bytes=planned.host_bytes)


def _streamed(
    program: Program, target: Target, measured: bool
) -> dict[int, tuple[Streaming, ...]]:
    if target.machine.d2h_bandwidth <= 0:
        return {}
    bodies = [s.body for s in program.segments]
    found = profile(program, bodies, all_configurations=True) if measured else None
    return streaming(program, target.machine, found)


def segment_seconds(program: Program, found: Profile) -> list[float]:
    """Seconds in a step of each segment, on the device that is here.

    From what was timed there; of a segment of a loop, those of all iterations.
    """
    times = _Times(program, find_target())
    bodies = [s.body for s in program.segments]
    times.take(found, bodies)
    return [n * times.of(b) for n, b in zip(program.repeats, bodies, strict=True)]


class _Times:
    """Seconds of fragments, measured where they were."""

    def __init__(self, program: Program, target: Target):
        self._program, self._machine = program, target.machine
        self._modelled: dict[str, float] = {}
        self._profile: Profile | None = None
        self._ratio = 1.0

    def measure(self, fragments: list[Fragment], whole: list[Fragment]) -> None:
        """Times fragments, and takes the ratio to the roofline from the whole step.

        Not those with a conditional: by which branch it runs is not for an operand that
        somebody made up to say.
        """
        plain = [f for f in fragments if not self._has_conditional(f)]
        self.take(profile(self._program, plain), whole)

    def _has_conditional(self, fragment: Fragment) -> bool:
        equations = self._program.equations
        return any(is_conditional(equations[i].eqn) for i in fragment.equations)

    def take(self, found: Profile, whole: list[Fragment]) -> None:
        """Takes what has been timed."""
        self._profile = found
        pairs = [(self._profile.seconds(f), self._roofline(f)) for f in whole]
        known = [(m, r) for m, r in pairs if m is not None]
        if known:
            self._ratio = sum(m for m, _ in known) / sum(r for _, r in known)

    def of(self, fragment: Fragment) -> float:
        """Seconds of a fragment."""
        found = None if self._profile is None else self._profile.seconds(fragment)
        return self._ratio * self._roofline(fragment) if found is None else found

    def source_of(self, fragment: Fragment) -> str:
        """Where the seconds of a fragment come from: see `Cost`."""
        if self._profile is None:
            return "roofline"
        is_timed = self._profile.seconds(fragment) is not None
        return "measured" if is_timed else "scaled roofline"

    @property
    def failures(self) -> dict[str, int]:
        """Why fragments could not be timed, and how many kinds each."""
        return {} if self._profile is None else self._profile.failures()

    def failure(self, branch: Fragment, default: Fragment) -> str | None:
        """Why a branch did not run where the default did, if that is so."""
        if self._profile is None or self._profile.cannot_run(default):
            return None
        return self._profile.cannot_run(branch)

    def added(self, joined: Fragment, body: Fragment) -> float:
        """Seconds that a segment takes longer when joined with a recomputation."""
        more = self._roofline(joined) - self._roofline(body)
        return max(0.0, self._ratio * more)

    def _roofline(self, fragment: Fragment) -> float:
        known = self._modelled.get(fragment.signature)
        if known is None:
            known = seconds(self._program, fragment, self._machine)
            self._modelled[fragment.signature] = known
        return known

    @property
    def source(self) -> str:
        """Where the seconds come from, in one line."""
        machine, found = self._machine, self._profile
        roofline = f"roofline of {machine.name} ({machine.source})"
        if found is None:
            return f"{roofline}, modelled"
        kinds = len(found.measurements)
        timed = sum(m.timing is not None for m in found.measurements.values())
        return (
            f"measured on {found.device}: {timed} of {kinds} kinds of segment "
            f"({found.now} now); the rest {self._ratio:.3g} x {roofline}"
        )


def _workspace_again(program: Program, value: int, segments: tuple[Cost, ...]) -> int:
    # A value made by its segment's kernel needs that segment's workspace again; one
    # that is fused needs what feeds the kernels among its equations.
    producer = program.values[value].producer
    assert producer is not None
    equation = program.equations[producer]
    if equation.kind is Kind.KERNEL:
        return max(0, segments[equation.home].workspace)
    return estimate(program, program.recomputations[value]).nbytes
