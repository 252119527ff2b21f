"""Why a plan is as it is: each decision next to what else could have been done."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import compat
from ..budget import format_bytes
from ..solve import (
    PROGRAMS,
    Alternative,
    Decision,
    Formulation,
    Problem,
    Replay,
    Schedule,
    Status,
    Tensor,
    Way,
    decisions,
    packed_bytes,
    replay,
)
from .layers import layers_of
from .peak import largest
from .wording import near, ranges, said, span_of_sizes, span_of_times


if TYPE_CHECKING:
    from ..plan import Plan
    from ..trace import Program


# Classes of values that are explained one by one.
_CLASSES = 12

# What more or less memory is worth is asked in steps of this many bytes, or of this
# part of the limit where that is less than four of them.
_STEP = 2**30
_PART = 0.05

# Faster ways of a group of values that are packed, to see whether they fit at all.
_PACKED = 3

_PLURAL = {
    Way.STAYS: "stay",
    Way.MOVES: "move",
    Way.AGAIN: "computed again",
    Way.BOTH: "move and are computed again",
}

_IF = {
    Way.STAYS: "if it stayed",
    Way.MOVES: "if it moved",
    Way.AGAIN: "if computed again",
    Way.BOTH: "if moved and computed again",
}


def explanation(plan: Plan) -> str:
    """Why a plan is as it is, in a few screens.

    **Arguments:**

    - `plan`: the plan.

    **Returns:**

    Text.
    """
    if plan.saved is not None and plan.program is None:
        lines = [f"The plan is {plan.note}: nothing is known of the step."]
    elif plan.is_untouched or plan.program is None:
        lines = _untouched(plan)
        if plan.analysis is not None:
            lines += ["", *_Explained.of(plan.analysed()).peak()]
    else:
        lines = _Explained.of(plan).lines()
    lines = [f"  {line}".rstrip() for line in lines]
    return near("\n".join(["Why this plan", *lines]))


def _untouched(plan: Plan) -> list[str]:
    if plan.status is Status.UNSUPPORTED:
        return [
            f"The step could not be planned: {plan.note}.",
            "It runs as jax.jit would, without a budget.",
        ]
    lines = ["The step is left as it was traced: nothing is moved or computed again."]
    if plan.note:
        lines.append(f"That is because {plan.note}.")
    nbytes = plan.device_bytes
    if nbytes is None and plan.realised is not None:
        nbytes = plan.realised.device_bytes
    takes = "" if nbytes is None else f" takes {format_bytes(nbytes)} and"
    if plan.budget is not None:
        budget = format_bytes(plan.budget)
        lines.append(f"Plain jax.jit{takes} keeps the budget of {budget}.")
    elif nbytes is not None:
        lines.append(f"Plain jax.jit{takes} needs no more than the plans found for it.")
    return lines


@dataclasses.dataclass(frozen=True)
class _Member:
    """One tensor of a class, and what was decided about it."""

    tensor: Tensor
    decision: Decision


class _Explained:
    """The parts of the text about one plan."""

    def __init__(self, plan: Plan, program: Program, problem: Problem, state: Replay):
        self.plan, self.program = plan, program
        self.problem, self.state = problem, state
        found = zip(problem.tensors, decisions(problem, plan.schedule), strict=True)
        self.members = [_Member(tensor, decision) for tensor, decision in found]
        self.free = [m for m in self.members if m.decision.has_gap]
        self.bound = len(self.members) - len(self.free)
        self.layers = layers_of(program, [m.tensor for m in self.free])
        self.again: dict[int, float] = defaultdict(float)
        recipes = {t.value: t.recipe for t in problem.tensors}
        runs: set[tuple[int | None, int]] = set()
        for item in plan.schedule.recomputes:
            recipe = recipes[item.value]
            if recipe is None or (recipe.run, item.use) in runs:
                continue
            self.again[item.value] += recipe.seconds[item.use]
            if recipe.run is not None:  # what else it makes costs nothing more
                runs.add((recipe.run, item.use))
        self.gain = 0.0  # of the best way that was not taken

    @staticmethod
    def of(plan: Plan) -> _Explained:
        """Of a plan that was analysed."""
        program, problem, state = plan.program, plan.problem, plan.replay
        assert program is not None and problem is not None and state is not None
        return _Explained(plan, program, problem, state)

    def lines(self) -> list[str]:
        """The whole text."""
        parts = self._outset(), self.peak(), self._margin(), self._decisions()
        lines = [line for part in parts if part for line in (*part, "")]
        return lines[:-1]

    def _outset(self) -> list[str]:
        plan, problem, state = self.plan, self.problem, self.state
        results, aliased = self.program.result_bytes()
        outside = self.program.argument_bytes() + results - aliased
        state_bytes = problem.carried_bytes
        fixed = format_bytes(outside - state_bytes)
        limit = format_bytes(problem.device_limit)
        cut = replay(problem, Schedule())
        budget = '"min"' if plan.budget is None else format_bytes(plan.budget)
        moving = f"Counted with these are {format_bytes(state_bytes)} of state."
        lines = [
            f"The budget is {budget}. Arguments and results take {fixed}, temporaries "
            f"may take {limit}.",
            *([moving] if state_bytes else []),
            f"With nothing moved or computed again they would take "
            f"{format_bytes(cut.device_peak)}, and the step {said(cut.makespan)}.",
        ]
        if plan.note:
            lines.append(f"Note that {plan.note}.")
        elif problem.host_limit <= 0:
            lines.append("Nothing may move: the host budget is 0.")
        if plan.schedule == Schedule():
            return [*lines, "As planned they do: the step is cut, and that is all."]
        compute = float(state.compute.sum())
        again, waits = sum(self.again.values()), state.makespan - compute
        rest = compute - cut.makespan - again
        lines += [
            f"As planned they take {format_bytes(state.device_peak)}, and the step "
            f"{said(state.makespan)}: {said(again)} more to compute again,",
            f"{said(waits)} more to wait for copies. All times are modelled.",
        ]
        if plan.schedule.streams or plan.schedule.picks:
            lines.append(
                "Values that segments read or leave on the host, and other variants of "
                f"segments, change it by {said(rest, True)}."
            )
        return lines

    def peak(self) -> list[str]:
        """Where memory is tightest, and what is alive there."""
        if not self.state.device.size:
            return []
        worst = int(self.state.device.argmax())
        taken, alive = self.state.device[worst], self.state.alive(worst)
        stacks = self.state.stacked(worst)
        ways = {m.tensor.value: m.decision.way for m in self.members}
        sizes = {t.value: t.stacked for t in self.problem.tensors}
        rest = taken - sum(self.program.values[v].nbytes for v in alive)
        rest -= sum(sizes[v] for v in stacks)
        lines = [
            f"The tightest point is segment {worst} of {self.problem.segments}, with "
            f"{format_bytes(taken)}. The largest values there:",
            *largest(self.program, alive, stacks, ways),
        ]
        small, carried = int(self.problem.resident[worst]), self.state.carried
        workspace = int(rest) - small - carried
        if carried:
            lines.append(f"   and {format_bytes(carried)} of state that stays there")
        if workspace > 0:
            title = self.program.title(self.program.segments[worst])
            # Also of what is computed again, or streamed, for the segment.
            lines.append(f"   and {format_bytes(workspace)} of workspace of {title}")
        if small:
            lines.append(f"   and {format_bytes(small)} of values too small to plan")
        return lines

    def _margin(self) -> list[str]:
        limit = self.problem.device_limit
        if self.plan.schedule == Schedule():
            return []
        step = _STEP if limit >= 4 * _STEP else int(_PART * limit)
        program = PROGRAMS[self.plan.formulation](self.problem)
        changes = (0, step, -step)
        now, more, less = (program.relaxation(limit + change) for change in changes)
        if now is None or more is None or less is None or now == float("inf"):
            return []
        size = format_bytes(step)
        costs = "be too little" if less == float("inf") else f"cost {said(less - now)}"
        return [
            f"{size} more device memory would save {said(now - more)}, {size} less "
            f"would {costs}",
            "(estimates of the relaxation, which may divide a value; modelled).",
        ]

    def _decisions(self) -> list[str]:
        classes: dict[str, list[_Member]] = defaultdict(list)
        for member in self.free:
            name = self.program.describe(member.tensor.value)
            classes[name].append(member)
        ranked = sorted(classes.items(), key=lambda item: _weight(item[1]))
        lines = [
            "What was decided, by layer or by the segment that makes a value, and what "
            "it would cost",
            "if one value went another way and all else stayed as planned:",
        ]
        for name, members in ranked[:_CLASSES]:
            size = format_bytes(members[0].tensor.nbytes)
            lines.append(f"{len(members):>3} x {size:>11}  {name}")
            groups: dict[Way, list[_Member]] = defaultdict(list)
            for member in sorted(members, key=lambda m: m.tensor.touches[0]):
                groups[member.decision.way].append(member)
            for way, group in groups.items():
                lines += [f"      {line}" for line in self._group(way, group, members)]
        rest = [m for _, members in ranked[_CLASSES:] for m in members]
        if rest:
            count = len(ranked) - _CLASSES
            more = "1 more class" if count == 1 else f"{count} more classes"
            lines.append(f"and {more}: {_counted(rest)}")
        if self.bound:
            many = "1 value" if self.bound == 1 else f"{self.bound} values"
            lines.append(f"and {many} needed again too soon to be away in between")
        if self.gain:
            lines += ["", *self._beaten()]
        return lines

    def _beaten(self) -> list[str]:
        gap = self.plan.gap * self.state.makespan
        if self.plan.budget is None:
            why = 'It is to take little memory: budget="min".'
        elif self.gain <= gap:
            why = f"It was left at a gap of {self.plan.gap:.2%}, {said(gap)}."
        else:
            why = f"Its status: {self.plan.status.value}."
        return [
            "* One alone should fit and be faster: this plan is not the fastest.",
            f"  {why}",
        ]

    def _group(
        self, way: Way, group: Sequence[_Member], members: Sequence[_Member]
    ) -> list[str]:
        what = f"{self._where(group, members)} ({len(group)}): {way.value}"
        others = self._others(way, group)
        if way is Way.STAYS and others:
            what += f"; {others.pop(0)}"
        if way is Way.AGAIN:
            seconds = [self.again[m.tensor.value] for m in group]
            what += f", {self._price(seconds, group)}"
        return [what, *(f"  {other}" for other in others)]

    def _where(self, group: Sequence[_Member], members: Sequence[_Member]) -> str:
        # By layers if all have one, else by the segments in which they are made.
        layers = {self.layers.get(m.tensor.value, -1) for m in group}
        if -1 not in layers:
            return ranges("layer", sorted(layers), range(max(layers) + 1))
        made = {m.tensor.touches[0] for m in group}
        among = sorted({m.tensor.touches[0] for m in members})
        return ranges("segment", sorted(made), among)

    def _others(self, way: Way, group: Sequence[_Member]) -> list[str]:
        found: dict[Way, list[Alternative]] = defaultdict(list)
        for member in group:
            for other in member.decision.others:
                if other.way is not Way.MOVES or self.problem.host_limit > 0:
                    found[other.way].append(other)
        ranked = sorted(found.items(), key=lambda item: _order(item[1]))
        # What stays has one reason: the next best costs time.
        ranked = ranked[:1] if way is Way.STAYS else ranked
        lines = [f"{_IF[other]}: {self._cost(costs, group)}" for other, costs in ranked]
        if Way.AGAIN not in found and way in (Way.STAYS, Way.MOVES):
            lines.append(f"not computed again: {self._why_not(group[0].tensor)}")
        if not any(m.tensor.movable for m in group):
            lines.append("not moved: it may not leave the device")
        return lines

    def _cost(self, costs: Sequence[Alternative], group: Sequence[_Member]) -> str:
        fit = [c for c in costs if c.fits]
        if not fit:
            text = span_of_times((c.seconds for c in costs), True)
            return f"{text}, but {_over(costs)}"
        text = self._price([c.seconds for c in fit], group, True)
        if len(fit) < len(group):
            text += f", possible for {len(fit)} of {len(group)}"
        least = -1e-9 * self.state.makespan
        faster = sorted((c for c in fit if c.seconds < least), key=lambda c: c.seconds)
        taken: list[int] = []
        for other in faster[:_PACKED]:
            taken.append(self._packed(other.schedule))
            if taken[-1] <= self._room:
                self.gain = max(self.gain, -other.seconds)
                return f"{text} *"
        if taken:
            over = format_bytes(min(taken) - self.problem.device_limit)
            text += f", but packs {over} over the limit"
        return text

    @functools.cached_property
    def _room(self) -> float:
        # A plan may pack a little over its limit, and so may what replaces it.
        return max(self.problem.device_limit, self._packed(self.plan.schedule))

    def _packed(self, schedule: Schedule) -> int:
        return packed_bytes(self.problem, replay(self.problem, schedule))

    def _price(
        self, seconds: Sequence[float], group: Sequence[_Member], sign: bool = False
    ) -> str:
        text = span_of_times(seconds, sign)
        if len({said(s) for s in seconds}) > 1 or seconds[0] <= 0:
            return text
        nbytes = group[0].tensor.nbytes * group[0].tensor.times
        unit, name = (2**30, "GiB") if nbytes >= 2**20 else (2**20, "MiB")
        return f"{text} ({said(seconds[0] * unit / nbytes)} per {name})"

    def _why_not(self, tensor: Tensor) -> str:
        if self.plan.formulation is not Formulation.JOINT:
            return f"the {self.plan.formulation.value} program computes nothing again"
        if tensor.value in self.program.recomputations:
            return "what it is made of is gone by then"
        producer = self.program.values[tensor.value].producer
        if producer is None:
            return "a loop hands it on"
        eqn = self.program.equations[producer].eqn
        if compat.has_effects(eqn):
            return f"{eqn.primitive.name} has an effect"
        return f"there is no recipe for {eqn.primitive.name}"


def _weight(members: Sequence[_Member]) -> tuple[int, int]:
    # What is away comes first, then what is large.
    away = [m for m in members if m.decision.way is not Way.STAYS]
    return -sum(map(_nbytes, away)), -sum(map(_nbytes, members))


def _nbytes(member: _Member) -> int:
    return member.tensor.nbytes * member.tensor.times


def _order(costs: Sequence[Alternative]) -> tuple[bool, float]:
    # What fits comes first, and of that the fastest on average.
    fit = [c.seconds for c in costs if c.fits]
    if fit:
        return False, sum(fit) / len(fit)
    return True, float(min(c.over + c.host_over for c in costs))


def _over(costs: Sequence[Alternative]) -> str:
    device = [c for c in costs if c.over]
    if not device:
        return f"{span_of_sizes(c.host_over for c in costs)} over the host limit"
    at = {c.segment for c in device}
    where = f" at segment {at.pop()}" if len(at) == 1 else ""
    return f"{span_of_sizes(c.over for c in device)} over the limit{where}"


def _counted(members: Sequence[_Member]) -> str:
    parts = []
    for way in Way:
        sizes = [_nbytes(m) for m in members if m.decision.way is way]
        if sizes:
            verb = way.value if len(sizes) == 1 else _PLURAL[way]
            parts.append(f"{len(sizes)} {verb} ({format_bytes(sum(sizes))})")
    return ", ".join(parts)
