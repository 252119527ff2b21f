"""Small placement problems, drawn at random or made by hand."""

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence

from autotm_jax.solve import (
    Carried,
    Configuration,
    Crossing,
    Fetch,
    JointProgram,
    Link,
    Problem,
    Recipe,
    Schedule,
    SolverOptions,
    Store,
    Tensor,
    Variant,
    replay,
)


KIB = 1024
LINK = Link(d2h=50e6, h2d=40e6, duplex=70e6, latency=1e-5)


def problem(
    tensors: Sequence[Tensor],
    segments: int = 6,
    *,
    device_limit: float = float("inf"),
    host_limit: float = float("inf"),
    compute: Sequence[float] | None = None,
    workspace: Sequence[int] | None = None,
    small: Sequence[tuple[int, int, int]] = (),
    link: Link = LINK,
    variants: Mapping[int, tuple[Variant, ...]] | None = None,
    configurations: Mapping[int, tuple[Configuration, ...]] | None = None,
) -> Problem:
    """A problem with one millisecond per segment and no workspace."""
    return Problem(
        tuple(compute or [1e-3] * segments),
        tuple(workspace or [0] * segments),
        tuple(small),
        tuple(tensors),
        link,
        device_limit,
        host_limit,
        variants or {},
        configurations or {},
    )


def random_problem(seed: int) -> Problem:
    """Five to eight segments, two to four tensors, whole KiB, any recipe."""
    draw = random.Random(seed)
    count = draw.randint(5, 8)
    compute = [draw.choice([0.5, 1.0, 2.0, 3.0]) * 1e-3 for _ in range(count)]
    workspace = [KIB * draw.randint(-2, 12) for _ in range(count)]
    tensors: list[Tensor] = []
    for index in range(draw.randint(2, 4)):
        # Most tensors have a gap that is worth leaving for, and some have two.
        born = draw.choice([0, 0, 1, 2])
        reads = {draw.choice([count - 1, count - 2])} if draw.random() < 0.9 else set()
        if draw.random() < 0.4 or not reads:
            reads.add(draw.randint(born + 1, count - 1))
        touches = (born, *sorted(reads - {born}))
        recipe = None
        if draw.random() < 0.7:
            earlier = [i for i, t in enumerate(tensors) if t.touches[0] <= born]
            roots = draw.sample(earlier, min(len(earlier), draw.randint(0, 1)))
            gaps = zip(touches, touches[1:], strict=False)
            at = frozenset(b for a, b in gaps if b - a > 2)
            seconds = {b: draw.choice([0.3, 1.0, 2.5]) * 1e-3 for b in sorted(at)}
            recipe = Recipe(seconds, KIB * draw.randint(0, 8), tuple(roots))
            for root in roots:
                tensors[root] = _with_optional(tensors[root], at)
        movable = draw.random() < 0.85
        nbytes = KIB * draw.randint(8, 64)
        tensors.append(Tensor(index, nbytes, touches, (), movable, recipe))
    _share(tensors, random.Random(seed))
    first = draw.randint(0, count - 2)
    small = [(KIB * draw.randint(1, 4), first, count)]
    bandwidth = draw.choice([15e6, 40e6, 200e6])
    link = Link(bandwidth, bandwidth * 0.9, bandwidth * 1.2, 1e-5)
    return problem(
        tensors, count, compute=compute, workspace=workspace, small=small, link=link
    )


def _share(tensors: list[Tensor], draw: random.Random) -> None:
    """Of some problems, two tensors come from one run."""
    known = [i for i, t in enumerate(tensors) if t.recipe is not None]
    if len(known) < 2 or draw.random() < 0.5:
        return
    first, second = draw.sample(known, 2)
    one, other = tensors[first].recipe, tensors[second].recipe
    assert one is not None and other is not None
    seconds = {k: one.seconds.get(k, s) for k, s in other.seconds.items()}
    other = dataclasses.replace(other, seconds=seconds, run=0)
    tensors[first] = dataclasses.replace(
        tensors[first], recipe=dataclasses.replace(one, run=0)
    )
    tensors[second] = dataclasses.replace(tensors[second], recipe=other)


def _with_optional(tensor: Tensor, uses: frozenset[int]) -> Tensor:
    new = {u for u in uses if u > tensor.touches[0]} - set(tensor.touches)
    optional = tuple(sorted({*tensor.optional, *new}))
    return dataclasses.replace(tensor, optional=optional)


def hard_problem(layers: int) -> Problem:
    """Layers forth and back, no two alike, that no solver ends with in seconds.

    Recipes hang on each other, the link is slow, and any kernel could stream its
    tensors at the price of the copies, so that many choices cost nearly the same.
    """
    draw, last = random.Random(0), 2 * layers
    tensors: list[Tensor] = []
    for i, part in itertools.product(range(layers), range(2)):
        index, nbytes = len(tensors), draw.randint(8 * KIB, 64 * KIB)
        optional, recipe = tuple(range(i + 2, last - i)) if part else (), None
        if part and i:
            seconds = {last - i: draw.uniform(0.2e-3, 2e-3)}
            recipe = Recipe(seconds, KIB * draw.randint(0, 8), (index - 2,))
        touches = (i, i + 1, last - i)
        tensors.append(Tensor(index, nbytes, touches, optional, recipe=recipe))
    link = Link(30e6, 25e6, 40e6, 1e-5)
    configurations = {}
    for k in range(last + 1):
        here = [i for i, t in enumerate(tensors) if k in t.touches][:4]
        sizes = range(1, len(here) + 1)
        chosen = [c for n in sizes for c in itertools.combinations(here, n)]
        configurations[k] = tuple(
            Configuration(frozenset(c), link.alone(nbytes, link.h2d), 0)
            for c in chosen
            for nbytes in [sum(tensors[i].nbytes for i in c)]
        )
    return problem(
        tensors,
        last + 1,
        compute=[draw.uniform(0.5e-3, 3e-3) for _ in range(last + 1)],
        small=[(500 * KIB, 0, last + 1)],
        link=link,
        configurations=configurations,
    )


def limit_between(problem: Problem, part: float) -> float:
    """A device limit from the least that any plan takes (0) to what all take (1)."""
    options = SolverOptions(time_limit=60.0, gap=1e-5)
    least = JointProgram(problem).least_memory(options).objective
    most = replay(problem, Schedule()).device_peak
    return least + part * (most - least) + 1


def tiny_problem(seed: int) -> Problem:
    """Five or six segments, two or three tensors, and what a machine may add.

    A third of the problems have kernels that stream some operands, most of them at the
    price of the copies; a fourth have a variant.
    """
    draw = random.Random(seed)
    while True:
        found = random_problem(draw.randint(0, 10**6))
        if found.segments <= 6 and len(found.tensors) <= 3:
            break
    if draw.random() < 0.35:
        found = dataclasses.replace(found, configurations=_configurations(found, draw))
    if draw.random() < 0.25:
        k = draw.randrange(found.segments)
        factor = draw.choice([0.7, 1.5, 3.0])
        space = KIB * draw.randint(-20, 8)
        host = KIB * draw.choice([0, 0, 8, 40])
        workspace = found.workspace[k] + space
        lean = Variant("lean", factor * found.compute[k], workspace, host=host)
        found = dataclasses.replace(found, variants={k: (lean,)})
    return found


def random_moves(seed: int) -> Problem:
    """A random problem, with tensors that are made more often than once in some."""
    found, draw = random_problem(seed).moved_only, random.Random(seed)
    tensors = tuple(
        dataclasses.replace(tensor, times=draw.choice([1, 1, 3]))
        for tensor in found.tensors
    )
    compute = list(found.compute)
    compute[draw.randrange(len(compute))] *= draw.choice([0.0, 1.0, 1.0])
    link = dataclasses.replace(found.link, reach=draw.choice([2e-4, float("inf")]))
    return dataclasses.replace(
        found, tensors=tensors, compute=tuple(compute), link=link
    )


def everything_away(problem: Problem) -> Schedule:
    """Every tensor is away wherever it can be, and everything waits for it."""
    stores: list[Store] = []
    fetches: list[Fetch] = []
    for tensor in problem.tensors:
        gaps = [(a, b) for a, b in itertools.pairwise(tensor.touches) if b > a + 1]
        if tensor.movable and gaps:
            stores.append(Store(tensor.value, gaps[0][0], gaps[0][0] + 1))
            fetches += [Fetch(tensor.value, b, b) for _, b in gaps]
    return Schedule(tuple(sorted(stores)), tuple(sorted(fetches)))


def limited(free: Problem, part: float) -> Problem:
    """With a limit between what all take if they are away, and if they stay."""
    least, most = (
        replay(free, schedule).device_peak
        for schedule in (everything_away(free), Schedule())
    )
    return dataclasses.replace(free, device_limit=least + part * (most - least))


def state_problem(seed: int) -> Problem:
    """A tiny problem without streams, in which one tensor or more is carried."""
    draw = random.Random(seed)
    found = dataclasses.replace(tiny_problem(seed), configurations={})
    count = found.segments
    tensors = list(found.tensors)
    for index in draw.sample(range(len(tensors)), draw.randint(1, len(tensors))):
        tensor = tensors[index]
        made: tuple[int, ...] = ()
        if draw.random() < 0.8:
            first = draw.randint(tensor.touches[-1], count - 1)
            made = tuple(sorted({first, draw.randint(first, count - 1)}))
        carried = Carried(made, count)
        tensors[index] = dataclasses.replace(tensor, recipe=None, carried=carried)
    return dataclasses.replace(found, tensors=tuple(tensors))


def _configurations(
    problem: Problem, draw: random.Random
) -> dict[int, tuple[Configuration, ...]]:
    """Up to two tensors of each kernel on the host, in all combinations."""
    out: dict[int, tuple[Configuration, ...]] = {}
    link = problem.link
    for k in range(problem.segments):
        here = [
            i for i, t in enumerate(problem.tensors) if k in t.touches and t.movable
        ]
        chosen = draw.sample(here, min(len(here), draw.randint(1, 2)))
        hosts = [frozenset({i}) for i in chosen]
        hosts += [frozenset(chosen)] if len(chosen) == 2 else []
        known = []
        for host in hosts:
            sizes = [problem.tensors[i].nbytes for i in host]
            made = [problem.tensors[i].touches[0] == k for i in host]
            seconds = sum(
                link.alone(n, link.d2h if m else link.h2d)
                for n, m in zip(sizes, made, strict=True)
            )
            reads_host = draw.random() < 0.3  # without a copy on the device
            factor = draw.uniform(0.3, 1.2) if reads_host else 1.0
            staging = 0 if reads_host else sum(sizes)
            known.append(Configuration(host, factor * seconds, staging))
        if known:
            out[k] = tuple(known)
    return out


Span = tuple[int, int]


class _Loops:
    """Draws tensors of a step with a pair of loops, and perhaps a loop around both.

    In a third of the steps, another loop follows that reads what the first one makes.
    """

    def __init__(self, draw: random.Random, longest: int):
        self.draw = draw
        before, middle, after = (draw.randint(0, 1) for _ in range(3))
        made, read = (draw.randint(2, longest) for _ in range(2))
        self.made: Span = before, before + made
        self.read: Span = self.made[1] + middle, self.made[1] + middle + read
        self.loops = [self.made, self.read]
        if draw.random() < 1 / 3:
            first = self.read[1] + draw.randint(0, 1)
            self.loops.append((first, first + draw.randint(1, 2)))
        self.segments = self.loops[-1][1] + after
        self.count, self.around = draw.randint(2, 4), draw.choice([1, 1, 1, 2])
        self.tensors: list[Tensor] = []

    def loop_of(self, segment: int) -> Span | None:
        """The loop in whose body a segment runs, if any."""
        return next((s for s in self.loops if s[0] <= segment < s[1]), None)

    def crossing(self) -> None:
        """A tensor that one loop makes and others may read."""
        draw, reads = self.draw, [k for s in self.loops[1:] for k in range(*s)]
        touches = [k for k in range(*self.made) if draw.random() < 0.4]
        touches = touches or [draw.randrange(*self.made)]
        touches += sorted(draw.sample(reads, draw.choice([0, 1, 1, 1, 2, 2])))
        seconds = draw.choice([0.0, 0.1e-3, 0.5e-3])
        readers = [s for s in self.loops[1:] if self._is_in(s, touches)] or [self.read]
        is_mirrored = draw.random() < 0.5 and len(readers) == 1
        later = tuple(readers[1:])
        crossing = Crossing(
            self.made, readers[0], self.count, seconds, is_mirrored, later
        )
        at = [k for k in touches if k in reads]
        self._add(touches, at, times=self.count * self.around, crossing=crossing)

    def _is_in(self, loop: Span, touches: Sequence[int]) -> bool:
        return any(loop[0] <= k < loop[1] for k in touches)

    def inside(self) -> None:
        """A tensor that one of the loops makes, and no other reads."""
        first, end = self.draw.choice([self.made, self.read])
        times = self.count * self.around
        self._add([first, end - 1], [end - 1] * (end - first > 2), times=times)

    def outside(self) -> None:
        """A tensor that neither makes. A loop reads it throughout, or not at all."""
        rest = [k for k in range(self.segments) if self.loop_of(k) is None]
        touches = set(self.draw.sample(rest, min(len(rest), 2)))
        for span in self.loops:
            if self.draw.random() < 0.4:
                touches.update(range(*span))
        ordered = sorted(touches)
        gaps = list(zip(ordered, ordered[1:], strict=False))
        # In longer gaps the joint program leaves out some windows.
        if gaps and all(b - a <= 6 for a, b in gaps):
            at = [b for a, b in gaps if b - a > 1]
            closed = tuple(self.loops)
            self._add(ordered, at, times=self.around, closed=closed)

    def _add(
        self,
        touches: Sequence[int],
        at: Sequence[int],
        times: int,
        crossing: Crossing | None = None,
        closed: tuple[Span, ...] = (),
    ) -> None:
        draw, index = self.draw, len(self.tensors)
        made = Tensor(
            index,
            KIB * draw.randint(8, 64),
            tuple(touches),
            movable=draw.random() < 0.85,
            times=times,
            crossing=crossing,
            closed=closed,
        )
        self.tensors.append(made)
        if at and draw.random() < 0.6:
            self._add_recipe(made, [k for k in at if draw.random() < 0.8] or at)

    def _add_recipe(self, made: Tensor, uses: Sequence[int]) -> None:
        draw = self.draw
        known = [
            i
            for i, root in enumerate(self.tensors[: made.value])
            if root.touches[0] <= made.touches[0]
            and all(self._is_at_hand(root, made, use) for use in uses)
        ]
        roots = draw.sample(known, min(len(known), draw.randint(0, 1)))
        for root in roots:
            self.tensors[root] = _with_optional(self.tensors[root], frozenset(uses))
        runs = 1 if made.closed else self.count
        seconds = {k: runs * draw.choice([0.1, 0.3, 1.0]) * 1e-3 for k in uses}
        dissolved = {made.touches[-1]} & {*uses} if draw.random() < 0.2 else ()
        recipe = Recipe(
            seconds, KIB * draw.randint(0, 8), tuple(roots), frozenset(dissolved)
        )
        self.tensors[made.value] = dataclasses.replace(made, recipe=recipe)

    def _is_at_hand(self, root: Tensor, made: Tensor, use: int) -> bool:
        """Whether a root may be read where another tensor is computed again."""
        if use in root.touches:
            return True
        if root.closed or made.closed:
            return bool(root.closed and made.closed)
        loops = {self.loop_of(k) for k in root.touches}
        return root.crossing is not None or loops == {self.loop_of(use)}


def loop_problem(seed: int, longest: int = 3, tensors: int = 3) -> Problem:
    """A step with a pair of loops, and tensors that cross from one to the other.

    Others are inside of one loop, or outside of both.

    **Arguments:**

    - `seed`: of the random numbers.
    - `longest`: segments of each loop at most, and two at least.
    - `tensors`: how many.

    **Returns:**

    A `Problem`, with a host limit but none for the device.
    """
    draw = random.Random(seed)
    loops = _Loops(draw, longest)
    loops.crossing()
    kinds = [loops.crossing, loops.crossing, loops.inside, loops.outside]
    while len(loops.tensors) < tensors:
        draw.choice(kinds)()
    _share(loops.tensors, random.Random(seed))
    count = loops.segments
    compute = [draw.choice([0.5, 1.0, 2.0, 3.0]) * 1e-3 for _ in range(count)]
    workspace = [KIB * draw.randint(-2, 12) for _ in range(count)]
    bandwidth = draw.choice([40e6, 100e6, 400e6])
    link = Link(bandwidth, bandwidth * 0.9, bandwidth * 1.2, 1e-5)
    held = sum(t.stacked for t in loops.tensors)
    host_limit = draw.choice([float("inf"), float("inf"), 0.6 * held, 0.3 * held])
    return problem(
        loops.tensors,
        count,
        compute=compute,
        workspace=workspace,
        small=[(KIB * draw.randint(1, 4), draw.randint(0, count - 2), count)],
        link=link,
        host_limit=host_limit,
    )
