"""Which loops of a step are not seen through, or not all of the way."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .. import compat
from ..trace import why_whole


if TYPE_CHECKING:
    from ..trace import Program


def loop_notes(program: Program | None) -> list[str]:
    """What a user should know about the loops of a program.

    **Arguments:**

    - `program`: the program; `None` for a step that was not analysed.

    **Returns:**

    Texts: one for each loop that runs as it is, as one kernel, for each `while` that is
    seen through, and for each loop that reads a stack of another loop which others
    read, too, so that it has to exist.
    """
    if program is None:
        return []
    found: Counter[str] = Counter()
    nest, touches = program.nest, program.touches()
    crossing = {v for v, at in touches.items() if nest.crossing(v, at)}
    run = {i for segment in program.segments for i in segment.body.equations}
    for equation in (program.equations[i] for i in sorted(run)):
        name, why = equation.eqn.primitive.name, ""
        if name in ("scan", "while"):
            why = why_whole(equation.eqn) or "is inside something that stays whole"
            if not crossing.isdisjoint(equation.outputs):
                why = "makes stacks for the body of another loop, all of them at once"
        if why:
            line = compat.source_line(equation.eqn)
            found[f"the {name} at {line} stays as it is: it {why}"] += 1
    made = {s.whole for loop in program.loops for s in loop.stacks}
    for loop in program.loops:
        if loop.condition is not None:
            found[
                f"the while at {loop.source} is taken to run {loop.length} times in "
                "what is said of seconds"
            ] += 1
        shared = sum(s.whole in made for s in loop.slices)
        if shared:
            stacks = "a stack" if shared == 1 else f"{shared} stacks"
            found[
                f"the loop at {loop.source} reads {stacks} of another loop that cannot "
                "be planned slice by slice: something else reads them, too"
            ] += 1
    return [text if n == 1 else f"{n} x {text}" for text, n in sorted(found.items())]
