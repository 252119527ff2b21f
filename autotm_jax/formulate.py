"""From a priced program to the numbers of a placement problem."""

from __future__ import annotations

import bisect
import dataclasses
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from . import compat
from .machine import Machine
from .profile import Costs
from .solve import (
    Carried,
    Configuration,
    Crossing,
    Link,
    Problem,
    Recipe,
    Tensor,
    Variant,
)
from .trace import VIEWS, Kind, Program, repeats


# The smallest values stay where they are, as many as never hold more than this fraction
# of the peak together.
_SMALL_TOGETHER = 1 / 200

# How far a chain of recomputations may reach: equations' results deep, and seconds as
# a fraction of the step.
_DEEPEST_CHAIN = 2
_LONGEST_CHAIN = 0.25


def formulate(
    program: Program,
    costs: Costs,
    machine: Machine,
    device_limit: float,
    host_limit: float,
    carries: bool = False,
) -> Problem:
    """The placement problem of a program.

    **Arguments:**

    - `program`, `costs`, `machine`: what runs, what it costs, and where.
    - `device_limit`, `host_limit`: bytes of temporaries.
    - `carries`: whether what is carried from step to step is placed, too.

    **Returns:**

    A `Problem`.
    """
    nest = program.nest
    touched = program.touches()
    touches = {v: at for v, at in touched.items() if v not in program.with_results}
    has_link = machine.d2h_bandwidth > 0 and host_limit > 0
    carried = _carried(program, touched) if carries and has_link else {}
    touches |= {value: program.reads_of(value) for value in carried}
    held = {value: _held(program, value, at) for value, at in touches.items()}
    large = _large(program, held)
    # What takes the place of a leaf of the state leaves once it has been read: nothing
    # is computed again from it. From what a loop overwrites, only while it is read.
    leaving: dict[int, Collection[int]]
    leaving = {program.carried[value]: () for value in carried}
    overwritten = program.with_results - program.returned
    leaving |= {v: touched[v] for v in overwritten if v in touched}
    chains = _Chains(program, costs, touches, set(large), leaving)
    small = []
    for value, at in touches.items():
        if value not in chains.large and value not in carried:
            last = max(at[-1], chains.extended.get(value, 0))
            small.append(_held(program, value, [at[0], last]))
    position = {v: i for i, v in enumerate(large)}
    runs = _runs(program, chains)
    tensors = []
    for value in large:
        recipe = None
        if value in chains.at:
            cost = costs.recomputations[value]
            reads = program.recomputations[value].reads
            roots = tuple(position[r] for r in reads if r in position)
            run, together = runs.get(value, (None, (value,)))
            times = {
                k: max(chains.seconds(v, k) for v in together if k in chains.at[v])
                for k in sorted(chains.at[value])
            }
            last = max((touches[value][-1], *chains.optional.get(value, ())))
            gone = {last} if program.dissolves(value, last) else set()
            dissolved = frozenset(gone.intersection(times))
            recipe = Recipe(times, cost.workspace, roots, dissolved, run)
        optional = tuple(sorted(chains.optional.get(value, ())))
        movable = machine.d2h_bandwidth > 0 and _can_leave(program, value)
        nbytes = program.values[value].nbytes
        mandatory = tuple(touches[value])
        scope = program.values[value].loop
        crossing = _crossing(program, value, sorted((*mandatory, *optional)))
        if crossing is not None:
            seconds = _stacking(program, value, crossing) / machine.device_bandwidth
            crossing = dataclasses.replace(crossing, seconds=seconds)
        scopes = {scope, *(nest.place(value, k) for k in (*mandatory, *optional))}
        tensors.append(
            Tensor(
                value,
                nbytes,
                mandatory,
                optional,
                movable,
                recipe,
                repeats(program.loops, scope),
                crossing,
                tuple(r for inside in scopes for r in nest.inside(inside)),
                carried.get(value),
            )
        )
    link = Link(
        # A link that is not there carries nothing, and so takes no time.
        machine.d2h_bandwidth or float("inf"),
        machine.h2d_bandwidth or float("inf"),
        machine.duplex_bandwidth or float("inf"),
        machine.transfer_latency,
        machine.copy_reach,
    )
    repeated = program.repeats
    variants = {
        k: tuple(
            Variant(
                name,
                repeated[k] * cost.seconds,
                cost.workspace,
                cost.timeline,
                cost.host_bytes,
            )
            for name, cost in others
        )
        for k, others in costs.variants.items()
    }
    return Problem(
        tuple(n * c.seconds for n, c in zip(repeated, costs.segments, strict=True)),
        tuple(c.workspace for c in costs.segments),
        tuple(small),
        tuple(tensors),
        link,
        device_limit,
        host_limit,
        variants,
        configurations=_configurations(program, costs, tensors),
        timelines={
            k: cost.timeline
            for k, cost in enumerate(costs.segments)
            if cost.timeline is not None
        },
    )


def live_bytes(program: Program) -> int:
    """The most bytes of values between segments, if all of them stay.

    **Arguments:**

    - `program`: what runs.

    **Returns:**

    Bytes, without arguments, results, and the workspace of segments.
    """
    touches = program.touches().items()
    stays = [(v, at) for v, at in touches if v not in program.with_results]
    held = [_held(program, value, at) for value, at in stays]
    return _peak(held, len(program.segments))


def _carried(
    program: Program, touches: Mapping[int, Sequence[int]]
) -> dict[int, Carried]:
    """What is carried from step to step and may live on the host, by argument."""
    out: dict[int, Carried] = {}
    for argument, result in program.carried.items():
        made = () if result == argument else tuple(touches[result])
        if _can_leave(program, argument):
            out[argument] = Carried(made, len(program.segments), result)
    return out


def _crossing(program: Program, value: int, touches: Sequence[int]) -> Crossing | None:
    found = program.nest.crossing(value, touches)
    if not found:
        return None
    made, read, *later = (program.nest.ranges[loop] for loop in found)
    first, second, *others = (program.loops[loop] for loop in found)
    is_mirrored = first.reverse != second.reverse and not others
    return Crossing(
        made, read, first.length, is_mirrored=is_mirrored, later=tuple(later)
    )


def _stacking(program: Program, value: int, crossing: Crossing) -> int:
    """Bytes that pass through device memory in a step to stack a value, and back.

    It is copied into the stack, and out of it for a kernel. What is fused reads the
    stack itself.
    """
    read = {value}
    copies = 1
    first, end = crossing.read[0], crossing.span[1]
    for segment in program.segments[first:end]:
        for index in segment.body.equations:
            equation = program.equations[index]
            if read.isdisjoint(equation.operands):
                continue
            if equation.kind is Kind.KERNEL:
                copies = 2
            elif equation.eqn.primitive.name in VIEWS:
                read.update(equation.outputs)
    times = repeats(program.loops, program.values[value].loop)
    return 2 * copies * times * program.values[value].nbytes


def _held(program: Program, value: int, touches: Sequence[int]) -> tuple[int, int, int]:
    """Bytes, and the segments `[first, end)` that hold them, if a value stays."""
    nbytes, crossing = program.values[value].nbytes, _crossing(program, value, touches)
    if crossing is None:
        return nbytes, touches[0], touches[-1] + 1
    return nbytes * crossing.count, *crossing.span


def _peak(held: Iterable[tuple[int, int, int]], segments: int) -> int:
    """The most bytes at once of what is held, as `_held` says it."""
    changes = np.zeros(segments + 1, dtype=np.int64)
    for nbytes, first, end in held:
        changes[first] += nbytes
        changes[end] -= nbytes
    return int(np.cumsum(changes).max(initial=0))


def _large(program: Program, held: Mapping[int, tuple[int, int, int]]) -> list[int]:
    """The values that are worth deciding about, in program order."""
    sizes = {v: nbytes for v, (nbytes, _, _) in held.items()}
    count = len(program.segments)

    allowed = _SMALL_TOGETHER * _peak(held.values(), count)
    thresholds = sorted(set(sizes.values()) | {1})
    # The largest threshold below which all values together are small.
    number = bisect.bisect_right(
        thresholds,
        allowed,
        key=lambda t: _peak((held[v] for v in held if sizes[v] < t), count),
    )
    smallest = thresholds[max(0, number - 1)]
    return [v for v in held if sizes[v] >= max(1, smallest)]


def _configurations(
    program: Program, costs: Costs, tensors: Sequence[Tensor]
) -> dict[int, tuple[Configuration, ...]]:
    # Kernels read device memory only: what is streamed is staged there.
    position = {t.value: i for i, t in enumerate(tensors) if t.movable}
    return {
        segment: tuple(
            Configuration(
                frozenset(position[v] for v in known.host),
                known.seconds,
                sum(program.values[v].nbytes for v in known.host),
            )
            for known in every
            if all(v in position for v in known.host)
        )
        for segment, every in costs.streaming.items()
    }


def _runs(program: Program, chains: _Chains) -> dict[int, tuple[int, tuple[int, ...]]]:
    """By value that a run makes with others, the number of the run, and all of them."""
    made: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for value in chains.at:
        made[program.recomputations[value].equations].append(value)
    several = (tuple(values) for values in made.values() if len(values) > 1)
    return {v: (number, group) for number, group in enumerate(several) for v in group}


def _can_leave(program: Program, value: int) -> bool:
    aval = program.values[value].aval
    # Sub-byte types and keys have no host layout that every version agrees on.
    return not compat.is_key_type(aval) and compat.itemsize_bits(aval.dtype) >= 8


@dataclasses.dataclass(frozen=True)
class _Link:
    """One step of a chain: a value wanted before a segment."""

    value: int
    use: int
    depth: int
    seconds: float


class _Chains:
    """Which values may be computed again, where, and what that needs there."""

    def __init__(
        self,
        program: Program,
        costs: Costs,
        touches: dict[int, list[int]],
        large: set[int],
        leaving: Mapping[int, Collection[int]],
    ):
        self.program, self.costs, self.touches = program, costs, touches
        self.large, self.leaving = large, leaving
        self.at: dict[int, set[int]] = {}
        self.optional: dict[int, set[int]] = {}
        self.extended: dict[int, int] = {}
        self._allowance = _LONGEST_CHAIN * sum(
            n * c.seconds for n, c in zip(program.repeats, costs.segments, strict=True)
        )
        for value in sorted(large):
            for a, b in zip(touches[value], touches[value][1:], strict=False):
                if b - a > 2 or self._crosses(value, a, b):
                    self._follow(_Link(value, b, 0, 0.0))

    def _crosses(self, value: int, a: int, b: int) -> bool:
        place = self.program.nest.place
        return place(value, a) != place(value, b)

    def seconds(self, value: int, use: int) -> float:
        """What it takes in a step to compute a value again before a segment."""
        place = self.program.nest.place(value, use)
        return repeats(self.program.loops, place) * self.costs.again(value, use)

    def _is_at_hand(self, root: int, value: int, use: int) -> bool:
        # What is computed again in a loop from outside of it has to be there for the
        # whole loop: only if that is so anyway, or what it takes is next to nothing.
        nest = self.program.nest
        if nest.place(root, use) == nest.place(value, use):
            return True
        return use in self.touches[root] or root not in self.large

    def _follow(self, first: _Link) -> None:
        queue = deque([first])
        while queue:
            link = queue.popleft()
            value, use = link.value, link.use
            if value not in self.costs.recomputations:
                continue
            seconds = link.seconds + self.costs.again(value, use)
            if link.depth > 0 and seconds > self._allowance:
                continue
            reads = self.program.recomputations[value].reads
            if any(use not in self.leaving.get(r, (use,)) for r in reads):
                continue
            roots = [r for r in reads if r in self.touches]
            done = self.at.setdefault(value, set())
            if use in done or not self._is_sensible(value, use, roots):
                continue
            done.add(use)
            for root in roots:
                if root not in self.large:
                    last = max(self.program.nest.touched(root, use))
                    self.extended[root] = max(self.extended.get(root, 0), last)
                    continue
                if use not in self.touches[root]:
                    self.optional.setdefault(root, set()).add(use)
                if link.depth < _DEEPEST_CHAIN and self._is_long_gone(root, use):
                    queue.append(_Link(root, use, link.depth + 1, seconds))
            if self._is_cheaper_before(value, use):
                self.optional.setdefault(value, set()).add(use - 1)
                queue.append(_Link(value, use - 1, link.depth, link.seconds))

    def _is_cheaper_before(self, value: int, use: int) -> bool:
        # The segment before may read the same roots, and so do half of the work.
        place = self.program.nest.place
        is_near = place(value, use - 1) == place(value, use)
        if (value, use - 1) not in self.program.joined or not is_near:
            return False
        return self.seconds(value, use - 1) < self.seconds(value, use)

    def _is_sensible(self, value: int, use: int, roots: list[int]) -> bool:
        # Bringing back a root that nobody else wants any more, or has just wanted for
        # the last time, only pays where it is much smaller than what it gives.
        small = self.program.values[value].nbytes / 2
        if not all(self._is_at_hand(r, value, use) for r in roots):
            return False
        return all(
            self.touches[r][-1] >= use - 1 or self.program.values[r].nbytes <= small
            for r in roots
        )

    def _is_long_gone(self, value: int, use: int) -> bool:
        before = [k for k in self.touches[value] if k < use]
        return bool(before) and use - before[-1] > 2
