"""The course of a step as a plan has it: memory over time, and what runs when.

All that draws a plan draws this. Times and bytes are modelled, as the plan's are. What
a loop does in all of its iterations is drawn segment by segment, as if each segment ran
all of its iterations before the next one.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import compat
from ..errors import ReportError
from ..solve import Replay, Schedule, Way, replay
from .layers import layers_of


if TYPE_CHECKING:
    from ..plan import Plan
    from ..solve import Problem
    from ..trace import Program


# A value that is left alone for so many segments may tell of a layer.
_LASTING = 3


class Lane(enum.Enum):
    """What of a machine is busy."""

    COMPUTE = "compute"
    D2H = "D2H"
    H2D = "H2D"


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

    - `begins`: seconds at which each segment begins, and at which the last one ends.
    - `device`, `host`: bytes at each segment; arguments and results are among them.
    - `always`: of the device bytes, those of arguments and results that stay there.
    - `workspace`: of the device bytes, those that each segment takes for itself; 0
        where a result takes an operand's place. What is left beyond these and `held`
        are values too small to plan.
    - `segments`: what each does.
    - `phases`: parts of the step with segments `[first, end)`; none if it shows none.
    - `spans`: what the lanes do.
    - `held`: the values that have a place of their own, the largest first.
    """

    begins: tuple[float, ...]
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
        """Of the whole step."""
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
    state = replay(problem, schedule)
    results, aliased = program.result_bytes()
    outside = program.argument_bytes() + results - aliased - problem.carried_bytes
    begins = _begins(state)
    held = _held(program, problem, schedule, state)
    return Course(
        begins,
        tuple(int(n) + outside for n in state.device),
        tuple(int(n) for n in state.host),
        outside,
        _workspace(problem, state),
        tuple(program.title(s) for s in program.segments),
        tuple(_phases(program)),
        (
            *_compute(program, state, begins),
            *_copies(program, problem, schedule, state.waits, begins),
        ),
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


def _begins(state: Replay) -> tuple[float, ...]:
    # What everything waits for is counted where it waits: at the last cut, after all.
    seconds = state.seconds + state.waits[:-1]
    seconds[-1] -= sum(state.waits[:-1])
    return tuple(itertools.accumulate(map(float, seconds), initial=0.0))


def _phases(program: Program) -> list[tuple[Phase, int, int]]:
    # JAX names what it transposes.
    def is_transposed(index: int) -> bool:
        return "transpose(" in compat.name_stack(program.equations[index].eqn)

    count = len(program.segments)
    back = [
        s.index for s in program.segments if any(map(is_transposed, s.body.equations))
    ]
    if not back:
        return []
    borders = 0, back[0], back[-1] + 1, count
    pairs = zip(Phase, itertools.pairwise(borders), strict=True)
    return [(phase, first, end) for phase, (first, end) in pairs if first < end]


def _compute(program: Program, state: Replay, begins: tuple[float, ...]) -> list[Span]:
    spans = []
    for segment in program.segments:
        k = segment.index
        begin = begins[k] + state.waits[k]
        end = min(begin + float(state.compute[k]), begins[k + 1])
        spans.append(Span(Lane.COMPUTE, program.title(segment), begin, end))
    return spans


def _copies(
    program: Program,
    problem: Problem,
    schedule: Schedule,
    waits: Sequence[float],
    begins: tuple[float, ...],
) -> list[Span]:
    link, last = problem.link, len(begins) - 1
    every = [(Lane.D2H, link.d2h, item.value, item.window) for item in schedule.stores]
    every += [
        (Lane.H2D, link.h2d, item.value, item.window) for item in schedule.fetches
    ]
    # From when on a cut has no other copy to wait for.
    free = [*begins[:-1], begins[-1] - waits[-1]]
    spans = []
    for lane, bandwidth, value, (first, end) in every:
        nbytes, name = program.nbytes_of(value), program.describe(value)
        if first < end:
            # In flight from where it may start to where somebody waits for it.
            spans.append(Span(lane, name, begins[first], begins[end], nbytes))
            continue
        cut = min(end, last)
        begin = free[cut]
        free[cut] += link.alone(nbytes, bandwidth)
        spans.append(Span(lane, name, begin, free[cut], nbytes, waits=True))
    return spans


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
        aval = value.aval.str_short(short_dtypes=True)
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
