"""The workspace of the segments of a program, as they follow one another.

What XLA overwrites in place depends on how an operand was made, which is known of the
results of every segment once that has been compiled alone. So segments are compiled
with nothing to overwrite first, and then once more where there is something. Those that
will most likely overwrite something are not compiled before that is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from ..machine import Target
from ..timeline import Timeline
from ..trace import (
    Fragment,
    Kind,
    Program,
    Scope,
    Segment,
    planned_fragment,
    recomputed_together,
)
from .costs import Costs, Overwriting
from .workspace import Probe, Source, Workspace, ask, workspaces


# How often segments are compiled again for what is overwritten in them: once for what
# those before them write, and once more for what changes by that.
_ROUNDS = 3


def ways_to_run(segment: Segment) -> tuple[Fragment, ...]:
    """The body of a segment, and its branches."""
    return (segment.body, *(branch.fragment for branch in segment.body.branches))


def segment_workspaces(
    program: Program, target: Target, always: bool = False
) -> tuple[dict[Fragment, Workspace | str], Overwriting, str]:
    """What the segments of a program and their branches need.

    **Arguments:**

    - `program`, `target`: what runs, and where.
    - `always`: see `workspaces`.

    **Returns:**

    By fragment its `Workspace`, or the reason why it does not compile; what XLA may
    overwrite; and where the figures come from.
    """
    # Those that most likely overwrite something wait until that is known.
    waiting = {s.index for s in program.segments if _may_overwrite(program, s)}
    out: dict[Fragment, Workspace | str] = {}
    overwriting, source = Overwriting(), Source()
    done: dict[int, frozenset[int]] = {}

    def plain(segment: Segment) -> frozenset[int]:
        return overwriting.plain.get(segment.index, frozenset())

    for number in range(_ROUNDS):
        if number:
            overwriting = _overwriting(program, out)
        stale = [
            s
            for s in program.segments
            if done.get(s.index) != plain(s) and (number or s.index not in waiting)
        ]
        if not stale:
            break
        done.update((s.index, plain(s)) for s in stale)
        # Whether a variant can be had at all is for XLA to say.
        probes = [
            Probe(f, frozenset(s.dying), plain(s), must_compile=bool(s.body.branches))
            for s in stale
            for f in ways_to_run(s)
            if not isinstance(out.get(f), str)
        ]
        found, asked = ask(program, probes, target, always)
        out.update((p.fragment, w) for p, w in zip(probes, found, strict=True))
        source += asked
    return out, overwriting, str(source)


def _may_overwrite(program: Program, segment: Segment) -> bool:
    """Whether it takes over the place of a matrix that a kernel made.

    What is fused or has more dimensions is hardly ever all that a kernel wrote.
    """

    def is_matrix(value: int) -> bool:
        producer = program.values[value].producer
        is_flat = program.values[value].aval.ndim <= 2
        return (
            is_flat
            and producer is not None
            and program.equations[producer].kind is Kind.KERNEL
        )

    return any(map(is_matrix, _taken_over(program, segment, segment.dying, None)))


def _overwriting(
    program: Program, found: Mapping[Fragment, Workspace | str]
) -> Overwriting:
    alone: set[int] = set()
    for segment in program.segments:
        workspace = found.get(segment.body)
        if isinstance(workspace, Workspace):
            alone.update(segment.body.writes[i] for i in workspace.plain)
    out: dict[int, frozenset[int]] = {}
    for segment in program.segments:
        workspace = found.get(segment.body)
        known = workspace.timeline if isinstance(workspace, Workspace) else None
        plain = alone & _taken_over(program, segment, segment.dying, known)
        if plain:
            out[segment.index] = frozenset(plain)
    return Overwriting(out, frozenset(alone))


def _taken_over(
    program: Program,
    segment: Segment,
    dying: Collection[int],
    timeline: Timeline | None,
) -> set[int]:
    """Those of its dying operands whose place something in a segment could take."""
    sizes = {program.values[v].nbytes for v in segment.body.writes}
    if timeline is not None:
        sizes.update(nbytes for nbytes, *_ in timeline.own)
    # What one loop leaves to another comes in slices.
    return {
        v
        for v in {*dying}.intersection(segment.body.reads)
        if program.values[v].loop == segment.loop and program.values[v].nbytes in sizes
    }


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
    - `apart`: by value that is computed again apart from the segments that want it, the
        values that the same run makes, itself among them.
    - `gone`: by segment, the operands that leave the device with it and come back, or
        are on the host between steps.
    - `copies`: the segments after which or for which something is copied between the
        memories.
    - `away`: of the state of the step, what is on the host between steps, with what
        takes its place.
    """

    again: Mapping[int, Sequence[int]]
    dropped: Mapping[int, Collection[int]]
    stored: Mapping[int, Collection[int]]
    back: Mapping[int, int]
    picks: Mapping[int, int]
    apart: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    gone: Mapping[int, Collection[int]] = dataclasses.field(default_factory=dict)
    copies: Collection[int] = ()
    away: frozenset[int] = frozenset()

    def copying(self, program: Program) -> set[Scope]:
        """The loops in whose bodies something is copied, and `None` for the step."""
        return {program.segments[k].loop for k in self.copies}


def recomputations_apart(
    program: Program, changes: Changes, target: Target
) -> dict[int, Workspace]:
    """What it takes to compute values again apart from any segment.

    **Arguments:**

    - `program`, `changes`: what runs, and what the plan changes about it.
    - `target`: where.

    **Returns:**

    By value, the `Workspace` of its recomputation (with all that the same run makes),
    by whose end its operands are still there; nothing on a CPU, whose compiler says
    nothing about it.
    """
    if target.machine.platform == "cpu":
        return {}
    copying = changes.copying(program)
    fragments = {
        v: recomputed_together(program, together)[together[0]]
        for v, together in sorted(changes.apart.items())
    }
    probes = [
        Probe(f, frozenset(), copies=program.values[v].loop in copying)
        for v, f in fragments.items()
    ]
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
    known = costs.overwriting.plain
    usual = {k: known.get(k, frozenset()) for k in range(len(program.segments))}
    probes = _as_planned(program, changes, usual, usual)
    found, _ = workspaces(program, list(probes.values()), target)
    by_segment = dict(zip(probes, found, strict=True))
    # What is not made any more may leave another result alone with its kernel.
    plain = changed(program, costs, changes, probes, by_segment)
    if plain != usual:
        probes = _as_planned(program, changes, usual, plain)
        found, _ = workspaces(program, list(probes.values()), target)
        by_segment = dict(zip(probes, found, strict=True))
    out: dict[int, tuple[int, Timeline | None]] = {}
    size = [value.nbytes for value in program.values]
    for k, workspace in by_segment.items():
        again, dropped = changes.again.get(k, ()), changes.dropped.get(k, ())
        fragment, timeline = probes[k].fragment, workspace.timeline
        counted = sum(
            size[v]
            for v in again
            if v not in fragment.writes and not program.dissolves(v, k)
        )
        counted += sum(size[v] for v in dropped)
        alone = costs.by(k, changes.picks.get(k, 0)).workspace
        if timeline is not None:
            timeline = timeline.named(fragment.reads, fragment.writes)
        out[k] = workspace.nbytes - alone - counted, timeline
    return out


def _as_planned(
    program: Program,
    changes: Changes,
    usual: Mapping[int, frozenset[int]],
    plain: Mapping[int, frozenset[int]],
) -> dict[int, Probe]:
    """The segments that are compiled otherwise than usual.

    By segment, `usual` and `plain` are the dying operands that may be overwritten in a
    program that is only cut, and as it is planned.
    """
    touches, kept = program.touches(), program.resident | program.with_results
    place, copying = program.nest.place, changes.copying(program)
    probes: dict[int, Probe] = {}
    for k, segment in enumerate(program.segments):
        again, dropped = changes.again.get(k, ()), changes.dropped.get(k, ())
        stored = changes.stored.get(k, ())
        here = frozenset(v for v in plain[k] if changes.back.get(v, k + 1) > k)
        copies = segment.loop in copying
        away = changes.away.intersection((*segment.body.reads, *segment.body.writes))
        if here == usual[k] and copies and not (again or dropped or stored or away):
            continue
        picked = changes.picks.get(k, 0)
        fragment = planned_fragment(program, k, picked, again, dropped)
        # What only a recomputation reads is wanted once more, here. In a loop, what
        # comes from outside is read again by the next iteration.
        more = {*fragment.reads}.difference(segment.body.reads, kept)
        once = {v for v in more if place(v, k) == segment.loop and touches[v][-1] <= k}
        left = changes.gone.get(k, ())
        dying = once.union(segment.dying, (here | away).intersection(left))
        rest = here, frozenset(stored), away
        probes[k] = Probe(fragment, frozenset(dying), *rest, copies=copies)
    return probes


def changed(
    program: Program,
    costs: Costs,
    changes: Changes,
    probes: Mapping[int, Probe],
    found: Mapping[int, Workspace],
) -> dict[int, frozenset[int]]:
    """What may be overwritten, by segment, as it and those before it are planned.

    **Arguments:**

    - `program`, `costs`, `changes`: as of `as_planned`.
    - `probes`, `found`: segments as they are planned, and what XLA said of them.

    **Returns:**

    By segment, those of its dying operands that are all that another kernel wrote.
    """
    # What is computed again later is made by another kernel then.
    alone = {*costs.overwriting.alone}
    out: dict[int, frozenset[int]] = {}
    for segment in program.segments:
        k = segment.index
        timeline = (found[k] if k in found else costs.segments[k]).timeline
        dying = {*segment.dying, *changes.gone.get(k, ())}
        taken = _taken_over(program, segment, dying, timeline)
        taken |= costs.overwriting.plain.get(k, frozenset())
        out[k] = frozenset(taken & alone)
        if k in found:
            writes = probes[k].fragment.writes
            alone.difference_update(writes)
            alone.update(writes[i] for i in found[k].plain)
    return out
