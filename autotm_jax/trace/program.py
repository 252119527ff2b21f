"""The static dataflow graph of a step: values, equations, segments.

A `Program` is what every later stage reads. Its *segments* are AutoTM's kernels, the
*materialised* values that cross from one segment to another are its tensors.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

from .bytes import shard_shape, ways_of
from .layout import orders
from .loops import Loop, repeats
from .nest import Nest
from .postpone import Order
from .primitives import VIEWS, Kind
from .regions import Manual
from .variants import Planned


# A path, a line, perhaps a column, and a function.
_SOURCE = re.compile(r"(.+?):(\d+)(?::\d+)? \((.*)\)")


def short_source(source: str) -> str:
    """`model.py:12 (layer)` for `/home/me/model.py:12:3 (layer)`."""
    found = _SOURCE.fullmatch(source)
    return f"{PurePath(found[1]).name}:{found[2]} ({found[3]})" if found else source


@dataclasses.dataclass(frozen=True)
class Value:
    """One array of the program.

    - `index`: its number, which is its place in `Program.values`.
    - `aval`: shape and dtype.
    - `nbytes`: bytes on each device.
    - `producer`: index of the equation that makes it; `None` for an argument, a
        constant, and what goes into the body of a loop or comes out of the loop.
    - `source`: the user's line that made it.
    - `loop`: the loop in whose body it is made, if any.
    - `sharding`: on a mesh, how it is divided; `None` if that is left to XLA.
    - `in_parts`: whether it is made in a `shard_map`, where the user sees a part of it.
    """

    index: int
    aval: Any
    nbytes: int
    producer: int | None
    source: str
    loop: int | None = None
    sharding: NamedSharding | None = None
    in_parts: bool = False

    @property
    def ways(self) -> float:
        """How many times it is larger than what a device has of it."""
        return ways_of(self.aval.shape, self.sharding)

    @property
    def type(self) -> str:
        """`bf16[16,1024,1024]`, as the user wrote it."""
        aval = self.aval
        if self.in_parts:
            shape = shard_shape(aval.shape, self.sharding)
            aval = aval.update(shape=shape, sharding=None)
        return aval.str_short(short_dtypes=True)

    def describe(self) -> str:
        """`bf16[16,1024,1024]` and the source line."""
        return f"{self.type} from {self.source}"


@dataclasses.dataclass(frozen=True)
class Equation:
    """One primitive applied to values.

    - `eqn`: the JAX equation (parameters, effects, source, context).
    - `inputs`: value indices, or JAX literals.
    - `outputs`: value indices.
    - `kind`: how XLA treats it.
    - `home`: the segment in which it stands in program order.
    - `manual`: the region of a `shard_map` that it runs in, if any. Then `eqn` is what
        each device does.
    """

    index: int
    eqn: Any
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]
    kind: Kind
    home: int
    manual: Manual | None = None

    @property
    def operands(self) -> tuple[int, ...]:
        """The inputs that are values, without the literals."""
        return tuple(i for i in self.inputs if isinstance(i, int))


@dataclasses.dataclass(frozen=True)
class Fragment:
    """A few equations that run together, and the values they exchange.

    Fused equations appear in every fragment that needs their results.

    - `equations`: equation indices in program order.
    - `reads`: materialised values from outside.
    - `writes`: values made here that are read elsewhere or returned.
    - `signature`: equal for structurally equal fragments.
    - `branches`: the other ways to run it, numbered from 1.
    """

    equations: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    signature: str
    branches: tuple[Branch, ...] = ()

    def by(self, variant: int) -> Fragment:
        """The fragment run by one of its branches; 0 is the default."""
        return self.branches[variant - 1].fragment if variant else self


@dataclasses.dataclass(frozen=True)
class Branch:
    """Another way to run a fragment, with the same results.

    - `of`: what is computed, as the user calls it.
    - `name`: the variant that computes it here.
    - `fragment`: what runs. It may read further constants.
    - `planned`: what is known of it if it runs by a plan of its own.
    """

    of: str
    name: str
    fragment: Fragment
    planned: Planned | None = None

    @property
    def title(self) -> str:
        """`attention, in 4 chunks`."""
        return f"{self.of}, {self.name}"


@dataclasses.dataclass(frozen=True)
class Segment:
    """A kernel of the program: one heavy operation with what belongs to it.

    - `body`: what runs.
    - `dying`: values of `body.reads` and `body.writes` that no later segment reads.
    - `loop`: the loop in whose body it runs, if any.
    """

    index: int
    body: Fragment
    dying: tuple[int, ...]
    loop: int | None = None


@dataclasses.dataclass(frozen=True)
class Program:
    """A step as a static dataflow graph.

    - `arguments`, `constants`, `results`: value indices (a result may also be a JAX
        literal); constants come with their arrays.
    - `donated`: per argument, whether its buffer may hold a result.
    - `segments`: in program order.
    - `recomputations`: for each value that may be computed a second time, the
        fragment that does it from materialised values.
    - `joined`: for such a value and a segment that reads it after others that do not,
        or the one before that segment: the segment's body and the recomputation as one
        fragment, where both read the same and the latter is nothing but fused work.
    - `left_out`: variants that could not be traced, with the reason, and how often.
    - `loops`: those that are written out: see `Nest`.
    - `carried`: arguments that are read, with the results that take their places in the
        next step.
    - `order`, `parts`: how the step was written out: see `build_program`.
    """

    values: tuple[Value, ...]
    equations: tuple[Equation, ...]
    arguments: tuple[int, ...]
    constants: tuple[tuple[int, Any], ...]
    results: tuple[Any, ...]
    donated: tuple[bool, ...]
    segments: tuple[Segment, ...]
    recomputations: dict[int, Fragment]
    joined: dict[tuple[int, int], Fragment]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    loops: tuple[Loop, ...] = ()
    carried: Mapping[int, int] = dataclasses.field(default_factory=dict)
    order: Order = Order.AS_TRACED
    parts: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def nest(self) -> Nest:
        """Where the loops are among the segments, and what crosses their borders."""
        scopes = [v.loop for v in self.values]
        return Nest(self.loops, [s.loop for s in self.segments], scopes)

    @functools.cached_property
    def layouts(self) -> tuple[tuple[int, ...] | None, ...]:
        """By value, the order in which XLA makes it, as far as that is known."""
        settled = self.returned.union(self.arguments)
        return orders(self.values, self.equations, settled)

    def turned(self, value: int) -> tuple[int, ...] | None:
        """The order in which XLA makes a value, if that is not the row-major one."""
        order = self.layouts[value]
        return None if order is None or list(order) == sorted(order) else order

    @functools.cached_property
    def repeats(self) -> tuple[int, ...]:
        """Per segment, how often it runs in a step."""
        return tuple(repeats(self.loops, s.loop) for s in self.segments)

    @functools.cached_property
    def everywhere(self) -> NamedSharding | None:
        """On a mesh, the sharding of what every device has all of."""
        known = (v.sharding.mesh for v in self.values if v.sharding is not None)
        mesh = next(known, None)
        return None if mesh is None else NamedSharding(mesh, PartitionSpec())

    @property
    def signature(self) -> tuple[str, ...]:
        """Equal for programs with structurally equal segments in the same order."""
        return tuple(s.body.signature for s in self.segments)

    @property
    def resident(self) -> frozenset[int]:
        """Values that are at hand in the whole step.

        Arguments and constants, and in the body of a loop its counter.
        """
        counters = (loop.counter for loop in self.loops)
        return frozenset((*self.arguments, *(i for i, _ in self.constants), *counters))

    @property
    def with_results(self) -> frozenset[int]:
        """Values that take the place of results: these, and what is to become them."""
        return self._results_in_loops[0]

    @property
    def overwritten(self) -> dict[int, int]:
        """Of those, what a loop hands on and overwrites, by what takes its place.

        Where the same segment reads the one for the last time and makes the other.
        """
        return self._results_in_loops[1]

    @functools.cached_property
    def _results_in_loops(self) -> tuple[frozenset[int], dict[int, int]]:
        # What a loop carries is in one place all the time. If that is a result's, so is
        # what it is before the loop, and at the start and the end of an iteration.
        returned, resident = self.returned, self.resident
        begun = {
            s.begun for loop in self.loops for s in loop.stacks if s.whole in returned
        }
        found = returned.union(v for v in begun if v is not None)
        touches, overwritten = self.touches(), dict[int, int]()

        def is_one(value: Any) -> bool:
            # Of what goes to another loop there is one for each iteration.
            is_other = isinstance(value, int) and value not in resident
            return is_other and not self.nest.crossing(value, touches[value])

        carries = [(loop.index, c) for loop in self.loops for c in loop.carries]
        befores = {c.before for _, c in carries}
        while True:
            count = len(found)
            for loop, carry in carries:
                if carry.result not in found or carry.before in found:
                    continue
                if not is_one(carry.before):
                    continue
                found |= {carry.before}
                first, _ = self.nest.ranges[loop]
                last = touches[carry.before][-1]
                initial, after = carry.initial, carry.after
                if is_one(initial) and touches[initial][-1] < first:
                    found |= {initial}
                # Unless it is made while the other is still read: then it is copied.
                is_made = is_one(after) and after not in befores
                if is_made and touches[after][0] >= last:
                    found |= {after}
                    if touches[after][0] == last:
                        overwritten[after] = carry.before
            if len(found) == count:
                return found, overwritten

    @property
    def returned(self) -> frozenset[int]:
        """Values the step returns."""
        return frozenset(r for r in self.results if isinstance(r, int))

    def keeping(self, names: Mapping[int, Collection[str]]) -> Program:
        """The program with these branches of each segment and no others.

        **Arguments:**

        - `names`: of the branches to keep, by segment.

        **Returns:**

        A `Program`.
        """

        def only(fragment: Fragment, segment: int) -> Fragment:
            kept = names.get(segment, ())
            branches = tuple(b for b in fragment.branches if b.name in kept)
            return dataclasses.replace(fragment, branches=branches)

        segments = (
            dataclasses.replace(s, body=only(s.body, s.index)) for s in self.segments
        )
        joined = {(v, k): only(f, k) for (v, k), f in self.joined.items()}
        return dataclasses.replace(self, segments=tuple(segments), joined=joined)

    def describe(self, value: int) -> str:
        """`bf16[16,1024,1024]` and the source line; how often, in a loop."""
        found = self.values[value]
        text = found.describe()
        times = repeats(self.loops, found.loop)
        return text if times == 1 else f"{text}, in each of {times} iterations"

    def title(self, segment: Segment) -> str:
        """`dot_general at model.py:12 (layer)`: what a segment does."""
        equations = [self.equations[i] for i in segment.body.equations]
        made = [e for e in equations if e.outputs]
        kernels = [e for e in made if e.kind is not Kind.FUSED] or made[-1:]
        if not kernels:
            return "nothing"
        source = self.values[kernels[0].outputs[0]].source
        return f"{kernels[0].eqn.primitive.name} at {short_source(source)}"

    def nbytes_of(self, value: int) -> int:
        """Bytes of a value; in a loop, of those of all iterations."""
        found = self.values[value]
        return found.nbytes * repeats(self.loops, found.loop)

    def dissolves(self, value: int, segment: int) -> bool:
        """Whether a value computed again for a segment is never written to memory.

        That is so if it is joined with the segment, nobody wants it afterwards, and
        only fused work and reductions read it.
        """
        joined = self.joined.get((value, segment))
        if joined is None or value in joined.writes:
            return False
        seen = {value}  # the value, and views of it
        for index in joined.equations:
            equation = self.equations[index]
            if seen.isdisjoint(equation.operands):
                continue
            name = equation.eqn.primitive.name
            if equation.kind is Kind.FUSED and name in VIEWS:
                seen.update(equation.outputs)
            elif equation.kind is not Kind.FUSED and not name.startswith("reduce_"):
                return False
        return True

    def touches(self) -> dict[int, list[int]]:
        """For each value that crosses a cut, the segments that make or read it.

        What a loop reads from outside is read by all of its segments.
        """
        touched: dict[int, set[int]] = defaultdict(set)
        resident, nest = self.resident, self.nest
        for segment in self.segments:
            for value in (*segment.body.reads, *segment.body.writes):
                touched[value] |= nest.touched(value, segment.index)
        for value, at in nest.borders():
            touched[value] |= nest.touched(value, at)
        return {v: sorted(at) for v, at in touched.items() if v not in resident}

    def reads_of(self, argument: int) -> list[int]:
        """The segments that read an argument; in a loop, all of its segments."""
        read: set[int] = set()
        for segment in self.segments:
            if argument in segment.body.reads:
                read |= self.nest.touched(argument, segment.index)
        for value, at in self.nest.borders():
            if value == argument:
                read |= self.nest.touched(argument, at)
        return sorted(read)

    def argument_bytes(self, numbers: Iterable[int] | None = None) -> int:
        """Bytes of the flat arguments, or of those with these numbers."""
        chosen = range(len(self.arguments)) if numbers is None else numbers
        return sum(self.values[self.arguments[n]].nbytes for n in chosen)

    @property
    def aliases(self) -> tuple[tuple[int, int], ...]:
        """Results that take the place of a donated argument, with that argument.

        Donated buffers are paired with results of the same shape and dtype in order,
        as JAX does when it lowers a step.
        """
        free: dict[Any, deque[int]] = defaultdict(deque)
        for index, donated in zip(self.arguments, self.donated, strict=True):
            if donated:
                free[self._kind(index)].append(index)
        out: list[tuple[int, int]] = []
        for result in self.results:
            if isinstance(result, int) and (left := free[self._kind(result)]):
                out.append((result, left.popleft()))
        return tuple(out)

    def _kind(self, value: int) -> Any:
        aval = self.values[value].aval
        return aval.shape, aval.dtype

    def result_bytes(self) -> tuple[int, int]:
        """Bytes of the results, and those of them that reuse a donated argument."""
        results = [r for r in self.results if isinstance(r, int)]
        aliased = [result for result, _ in self.aliases]
        size = [v.nbytes for v in self.values]
        return sum(size[r] for r in results), sum(size[r] for r in aliased)
