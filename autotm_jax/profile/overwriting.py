"""The workspace of the segments of a program, as they follow one another.

What XLA overwrites in place depends on how an operand was made, which is known of the
results of every segment once that has been compiled alone. So segments are compiled
with nothing to overwrite first, and then once more where there is something.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from ..machine import Target
from ..timeline import Timeline
from ..trace import Fragment, Program, Segment, planned_fragment
from .costs import Costs
from .workspace import Probe, Workspace, ask, workspaces


def ways_to_run(segment: Segment) -> tuple[Fragment, ...]:
    """The body of a segment, and its branches."""
    return (segment.body, *(branch.fragment for branch in segment.body.branches))


def segment_workspaces(
    program: Program, target: Target, always: bool = False
) -> tuple[dict[Fragment, Workspace | str], dict[int, frozenset[int]], str]:
    """What the segments of a program and their branches need.

    **Arguments:**

    - `program`, `target`: what runs, and where.
    - `always`: see `workspaces`.

    **Returns:**

    By fragment its `Workspace`, or the reason why it does not compile; by segment the
    dying operands that XLA may overwrite there if they have been on the device since
    they were made; and where the figures come from.
    """
    every = [(s, fragment) for s in program.segments for fragment in ways_to_run(s)]
    # Whether a variant can be had at all is for XLA to say.
    probes = [
        Probe(f, frozenset(s.dying), must_compile=bool(s.body.branches))
        for s, f in every
    ]
    found, source = ask(program, probes, target, always)
    out = {f: w for (_, f), w in zip(every, found, strict=True)}
    plain = _overwritable(program, out)
    again = [
        Probe(
            f,
            frozenset(s.dying),
            plain[s.index],
            must_compile=bool(s.body.branches),
        )
        for s, f in every
        if s.index in plain and isinstance(out[f], Workspace)
    ]
    if again:
        found, _ = ask(program, again, target, always)
        out.update((p.fragment, w) for p, w in zip(again, found, strict=True))
    return out, plain, source


def _overwritable(
    program: Program, found: Mapping[Fragment, Workspace | str]
) -> dict[int, frozenset[int]]:
    alone: set[int] = set()
    for segment in program.segments:
        workspace = found[segment.body]
        if isinstance(workspace, Workspace):
            alone.update(segment.body.writes[i] for i in workspace.plain)
    out: dict[int, frozenset[int]] = {}
    for segment in program.segments:
        # What one loop leaves to another comes in slices.
        here = segment.loop
        dying = (v for v in segment.dying if v in segment.body.reads)
        plain = {v for v in dying if v in alone and program.values[v].loop == here}
        sizes = {program.values[v].nbytes for v in segment.body.writes}
        workspace = found[segment.body]
        if isinstance(workspace, Workspace) and workspace.timeline is not None:
            sizes.update(nbytes for nbytes, *_ in workspace.timeline.own)
        plain = frozenset(v for v in plain if program.values[v].nbytes in sizes)
        if plain:
            out[segment.index] = plain
    return out


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a plan changes about what segments read and make.

    - `again`: by segment, the values that are computed again for it and joined with it:
        pairs in `Program.joined`.
    - `dropped`: by segment, the values that it makes and nobody reads before they are
        computed again.
    - `stored`: by segment, the values that it makes and that begin to be copied to the
        host right after it.
    - `back`: by value, the first segment for which it is brought back.
    - `picks`: by segment, the variant that runs it, if not the default.
    - `apart`: values that are computed again apart from the segments that want them.
    """

    again: Mapping[int, Sequence[int]]
    dropped: Mapping[int, Collection[int]]
    stored: Mapping[int, Collection[int]]
    back: Mapping[int, int]
    picks: Mapping[int, int]
    apart: Collection[int] = ()


def recomputations_apart(
    program: Program, values: Collection[int], target: Target
) -> dict[int, Workspace]:
    """What it takes to compute values again apart from any segment.

    **Arguments:**

    - `program`, `values`: what runs, and which of its values.
    - `target`: where.

    **Returns:**

    By value, the `Workspace` of its recomputation, by whose end its operands are still
    there; nothing on a CPU, whose compiler says nothing about it.
    """
    if target.machine.platform == "cpu":
        return {}
    fragments = {v: program.recomputations[v] for v in sorted(values)}
    probes = [Probe(f, frozenset()) for f in fragments.values()]
    found, _ = workspaces(program, probes, target)
    out: dict[int, Workspace] = {}
    for (value, fragment), workspace in zip(fragments.items(), found, strict=True):
        timeline = workspace.timeline
        if timeline is not None:
            timeline = timeline.named(fragment.reads, fragment.writes)
        out[value] = dataclasses.replace(workspace, timeline=timeline)
    return out


def as_planned(
    program: Program, costs: Costs, changes: Changes, target: Target
) -> dict[int, tuple[int, Timeline | None]]:
    """What a plan makes of the segments' workspace.

    A plan counts a segment and a value that is computed again for it as if they were
    apart. Where XLA fuses them it may need less, or more. What is dropped is not made
    at all, and what was away in between cannot be overwritten.

    **Arguments:**

    - `program`, `costs`: what runs.
    - `changes`: what the plan changes.
    - `target`: where.

    **Returns:**

    By segment, the bytes by which its workspace changes and its `Timeline`, if that is
    known; nothing on a CPU, whose compiler says nothing about it.
    """
    if target.machine.platform == "cpu":
        return {}
    touches, kept = program.touches(), program.resident | program.returned
    place = program.nest.place
    probes: dict[int, Probe] = {}
    for k, segment in enumerate(program.segments):
        again, dropped = changes.again.get(k, ()), changes.dropped.get(k, ())
        stored = changes.stored.get(k, ())
        before = costs.plain.get(k, frozenset())
        plain = frozenset(v for v in before if changes.back.get(v, k + 1) > k)
        if plain == before and not (again or dropped or stored):
            continue
        picked = changes.picks.get(k, 0)
        fragment = planned_fragment(program, k, picked, again, dropped)
        # What only a recomputation reads is wanted once more, here. In a loop, what
        # comes from outside is read again by the next iteration.
        more = {*fragment.reads}.difference(segment.body.reads, kept)
        here = {v for v in more if place(v, k) == segment.loop and touches[v][-1] <= k}
        dying = here.union(segment.dying)
        probes[k] = Probe(fragment, frozenset(dying), plain, frozenset(stored))
    found, _ = workspaces(program, list(probes.values()), target)
    out: dict[int, tuple[int, Timeline | None]] = {}
    size = [value.nbytes for value in program.values]
    for (k, probe), workspace in zip(probes.items(), found, strict=True):
        again, dropped = changes.again.get(k, ()), changes.dropped.get(k, ())
        counted = sum(
            size[v]
            for v in again
            if v not in probe.fragment.writes and not program.dissolves(v, k)
        )
        counted += sum(size[v] for v in dropped)
        alone = costs.by(k, changes.picks.get(k, 0)).workspace
        timeline, fragment = workspace.timeline, probe.fragment
        if timeline is not None:
            timeline = timeline.named(fragment.reads, fragment.writes)
        out[k] = workspace.nbytes - alone - counted, timeline
    return out
