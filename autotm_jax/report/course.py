"""The course of a step as a plan has it: memory over time, and what runs when.

All that draws a plan draws this. Bytes are the plan's; what runs when is simulated,
event by event, on a compute stream and two copy engines. What a loop does in all of its
iterations is drawn segment by segment, as if each segment ran all of its iterations
before the next one.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import ReportError
from ..simulate import Lane, Simulation, simulate
from ..solve import Fetch, Replay, Schedule, Store, Way
from ..trace import backward_segments
from .layers import layers_of


if TYPE_CHECKING:
    from ..plan import Plan
    from ..solve import Problem
    from ..trace import Program


# A value that is left alone for so many segments may tell of a layer.
_LASTING = 3


class Phase(enum.Enum):
    """The parts of a training step."""

    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"


@dataclasses.dataclass(frozen=True)
class Span:
    """Something that a lane does.

    - `lane`: what is busy.
    - `name`: what it does.
    - `begin`, `end`: seconds from the beginning of the step.
    - `nbytes`: that are copied; 0 for compute.
    - `waits`: whether everything else waits for it.
    """

    lane: Lane
    name: str
    begin: float
    end: float
    nbytes: int = 0
    waits: bool = False


class Role(enum.Enum):
    """What a value is to a step."""

    ARGUMENT = "argument"
    RESULT = "result"
    TEMPORARY = "temporary"


@dataclasses.dataclass(frozen=True)
class Held:
    """A value that has a place of its own, and when it is on the device.

    That is an argument, a result that takes no argument's place, or a value that a plan
    decides about.

    - `value`: its number in the program.
    - `nbytes`: on the device, in each of the spans.
    - `aval`, `source`: shape and dtype, and the user's line that made it. Of a value
        that goes from loop to loop, one of all iterations and the stack of all of them
        are two, and so are the old and the new one of state that is updated.
    - `way`: what was decided.
    - `layer`: of the model, if it shows layers.
    - `role`: what it is to the step.
    - `spans`: segments `[first, end)` in which it is on the device.
    """

    value: int
    nbytes: int
    aval: str
    source: str
    way: Way
    layer: int | None
    role: Role
    spans: tuple[tuple[int, int], ...]

    def is_at(self, segment: int) -> bool:
        """Whether it is on the device at a segment."""
        return any(first <= segment < end for first, end in self.spans)


@dataclasses.dataclass(frozen=True)
class Course:
    """The course of a step.

    - `begins`: seconds at which each segment begins, or begins to wait for copies, and
        at which everything has ended.
    - `modelled`: seconds of the step as the solver has them, which spreads copies over
        what runs beside them.
    - `device`, `host`: bytes at each segment; arguments and results are among them.
    - `always`: of the device bytes, those of arguments and results that stay there.
    - `workspace`: of the device bytes, those that each segment takes for itself, or
        what is computed again or streamed for it; 0 where a result takes an operand's
        place. What is left beyond these and `held` are values too small to plan.
    - `segments`: what each does.
    - `phases`: parts of the step with segments `[first, end)`; none if it shows none.
    - `spans`: what the lanes do.
    - `held`: the values that have a place of their own, the largest first.
    """

    begins: tuple[float, ...]
    modelled: float
    device: tuple[int, ...]
    host: tuple[int, ...]
    always: int
    workspace: tuple[int, ...]
    segments: tuple[str, ...]
    phases: tuple[tuple[Phase, int, int], ...]
    spans: tuple[Span, ...]
    held: tuple[Held, ...]

    @property
    def seconds(self) -> float:
        """Of the whole step, simulated."""
        return self.begins[-1]

    @property
    def peak(self) -> int:
        """The segment with the most device bytes."""
        return max(range(len(self.device)), key=self.device.__getitem__)

    def alive(self, segment: int) -> list[Held]:
        """What is on the device at a segment, the largest first."""
        return [held for held in self.held if held.is_at(segment)]


def course_of(plan: Plan, schedule: Schedule | None = None) -> Course:
    """The course of a step by a plan, or by another schedule of its problem.

    **Arguments:**

    - `plan`: the plan.
    - `schedule`: instead of the plan's; an empty one for the step with nothing moved or
        computed again.

    **Returns:**

    A `Course`.

    **Raises:**

    - `ReportError`: for a step that cannot be analysed.
    """
    plan = plan.analysed()
    program, problem = plan.program, plan.problem
    assert program is not None and problem is not None
    if not problem.segments:
        raise ReportError("There is nothing to draw: the step computes nothing.")
    schedule = plan.schedule if schedule is None else schedule
    simulation = simulate(problem, schedule)
    state = simulation.replay
    results, aliased = program.result_bytes()
    outside = program.argument_bytes() + results - aliased - problem.carried_bytes
    held = _held(program, problem, schedule, state)
    return Course(
        _begins(simulation),
        simulation.modelled,
        tuple(int(n) + outside for n in state.device),
        tuple(int(n) for n in state.host),
        outside,
        _workspace(problem, state),
        tuple(program.title(s) for s in program.segments),
        tuple(_phases(program)),
        tuple(_spans(program, simulation)),
        held,
    )


def _workspace(problem: Problem, state: Replay) -> tuple[int, ...]:
    # What is neither a value that is decided about nor one too small for that.
    sizes = {tensor.value: tensor.nbytes for tensor in problem.tensors}
    stacks = {tensor.value: tensor.stacked for tensor in problem.tensors}
    taken = state.device - problem.resident - state.carried
    for known, spans in ((sizes, state.stays), (stacks, state.stacks)):
        for value, first, end in spans:
            taken[first:end] -= known[value]
    return tuple(int(max(0, nbytes)) for nbytes in taken)


def _begins(simulation: Simulation) -> tuple[float, ...]:
    # A segment begins where the one before it has ended.
    found = zip(simulation.parts, simulation.run.spans, strict=True)
    ends = [float(span.end) for part, span in found if isinstance(part, int)]
    return 0.0, *ends[:-1], simulation.seconds


def _phases(program: Program) -> list[tuple[Phase, int, int]]:
    count, back = len(program.segments), backward_segments(program)
    if not back:
        return []
    borders = 0, back[0], back[-1] + 1, count
    pairs = zip(Phase, itertools.pairwise(borders), strict=True)
    return [(phase, first, end) for phase, (first, end) in pairs if first < end]


def _spans(program: Program, simulation: Simulation) -> Iterator[Span]:
    found = zip(simulation.tasks, simulation.parts, simulation.run.spans, strict=True)
    for task, part, span in found:
        when = float(span.begin), float(span.end)
        if isinstance(part, int):
            yield Span(task.lane, program.title(program.segments[part]), *when)
        elif isinstance(part, (Store, Fetch)):
            first, end = part.window
            name, waits = program.describe(part.value), first >= end
            yield Span(task.lane, name, *when, int(task.work), waits)


def _held(
    program: Program, problem: Problem, schedule: Schedule, state: Replay
) -> tuple[Held, ...]:
    lasting = [t for t in problem.tensors if t.gaps(t.touches, _LASTING)]
    layers = layers_of(program, lasting)
    spans, stacks = _by_value(state.stays), _by_value(state.stacks)
    moved = schedule.moved.union(f.value for f in schedule.fetches)
    again = {r.value for r in schedule.recomputes}
    known = {
        (False, False): Way.STAYS,
        (True, False): Way.MOVES,
        (False, True): Way.AGAIN,
        (True, True): Way.BOTH,
    }
    always = ((0, problem.segments),)

    def held(
        index: int,
        way: Way,
        when: Sequence[tuple[int, int]],
        count: int = 1,
        role: Role | None = None,
    ) -> Held:
        value = program.values[index]
        aval = value.type
        aval = f"{count} x {aval}" if count > 1 else aval
        said = aval, value.source, way, layers.get(index)
        role = role or (Role.ARGUMENT if index in arguments else Role.TEMPORARY)
        return Held(index, count * value.nbytes, *said, role, tuple(sorted(when)))

    arguments = frozenset(program.arguments)
    out = []
    for tensor in problem.tensors:
        index = tensor.value
        way = known[index in moved, index in again]
        stays = tensor.carried is not None and way is Way.STAYS
        for when in [always] if stays else _apart(spans.get(index, ())):
            out.append(held(index, way, when))
        if tensor.crossing is not None and index in stacks:
            out.append(held(index, way, stacks[index], tensor.crossing.count))
    decided = {tensor.value for tensor in problem.tensors}
    for index in arguments - decided:
        out.append(held(index, Way.STAYS, always))
    results = Counter(r for r in program.results if isinstance(r, int))
    results.subtract(result for result, _ in program.aliases)
    for index in results.elements():
        out.append(held(index, Way.STAYS, always, role=Role.RESULT))
    return tuple(sorted(out, key=lambda held: (-held.nbytes, held.value)))


def _apart(spans: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    # While state is updated, there are the old and the new one.
    apart: list[list[tuple[int, int]]] = [[]]
    for span in sorted(spans):
        free = (found for found in apart if not found or found[-1][1] <= span[0])
        found = next(free, None)
        if found is None:
            apart.append([span])
        else:
            found.append(span)
    return apart


def _by_value(
    spans: Sequence[tuple[int, int, int]],
) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for value, first, end in spans:
        found.setdefault(value, []).append((first, end))
    return found
