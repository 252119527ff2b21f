"""Where a plan needs most, and the largest of some values, for people to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..budget import format_bytes
from ..solve import replay
from ..trace import Kind
from .wording import near


if TYPE_CHECKING:
    from ..solve import Problem, Schedule, Way
    from ..trace import Equation, Program


# Kinds that are named.
_LINES = 10


def largest(
    program: Program,
    values: Iterable[int],
    stacks: Iterable[int] = (),
    ways: Mapping[int, Way] | None = None,
) -> list[str]:
    """A few lines of text about the largest of some values, with where they are made.

    **Arguments:**

    - `program`: the program.
    - `values`: of the program.
    - `stacks`: values of loops of which those of all iterations count.
    - `ways`: what was decided about them, if that is to be said.

    **Returns:**

    At most eleven lines, the largest values first; equal ones of one line are counted.
    """

    def named(value: int) -> str:
        way = "" if ways is None or value not in ways else f", {ways[value].value}"
        return program.values[value].describe() + way

    found = [(program.values[v].nbytes, named(v)) for v in values]
    for value in stacks:
        each = program.values[value]
        assert each.loop is not None
        count = program.loops[each.loop].length
        found.append((count * each.nbytes, f"a stack of {count} {named(value)}"))
    found.sort(key=lambda sized: -sized[0])
    kinds = list(Counter(found).items())
    lines = [
        f"{count:>4} x {format_bytes(nbytes):>12}  {name}"
        for (nbytes, name), count in kinds[:_LINES]
    ]
    if left := kinds[_LINES:]:
        size = format_bytes(sum(nbytes * count for (nbytes, _), count in left))
        lines.append(f"{sum(n for _, n in left):>4} smaller, {size}")
    return lines


def tightest_point(program: Program, problem: Problem, schedule: Schedule) -> str:
    """Where a schedule needs most, and the largest values there.

    **Arguments:**

    - `program`, `problem`, `schedule`: what runs, and how.

    **Returns:**

    Text of a few lines.
    """
    state = replay(problem, schedule)
    worst = int(state.device.argmax())
    picks = {p.segment: p.variant for p in schedule.picks}
    body = program.segments[worst].body.by(picks.get(worst, 0))
    equations = [program.equations[i] for i in body.equations]
    alive = set(state.alive(worst)) - program.resident
    lines = largest(program, alive, state.stacked(worst))
    workspace = int(state.workspace[worst])
    inside = {
        v
        for v in _used_up(equations) - alive - program.resident
        if program.values[v].nbytes <= workspace  # else it takes an operand's place
    }
    if inside:
        lines.append(
            f"and {format_bytes(workspace)} of workspace, for what is made and used up "
            "in the segment, at one time or another:"
        )
        lines += largest(program, inside)
    every = "\n".join(lines)
    return near(
        f"The largest values alive at the tightest point, segment {worst} of "
        f"{problem.segments}{_said(program, equations)}:\n{every}"
    )


def _used_up(equations: Sequence[Equation]) -> set[int]:
    # What kernels write, and what is written for them to read. The rest is fused.
    kernels = [e for e in equations if e.kind is not Kind.FUSED]
    made = {v for e in equations for v in e.outputs}
    fed = {v for e in kernels if e.kind is Kind.KERNEL for v in e.operands}
    return {v for e in kernels for v in e.outputs} | (made & fed)


def _said(program: Program, equations: Iterable[Equation]) -> str:
    # What a segment does, and where the user wrote that.
    made = [e for e in equations if e.outputs]
    kernels = [e for e in made if e.kind is not Kind.FUSED] or made[-1:]
    if not kernels:
        return ""
    first = kernels[0]
    source = program.values[first.outputs[0]].source
    return f" ({first.eqn.primitive.name} at {source})"
