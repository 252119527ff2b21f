"""Small placement problems, drawn at random or made by hand."""

import random
from collections.abc import Mapping, Sequence

from autotm_jax.solve import Configuration, Link, Problem, Recipe, Tensor, Variant


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
    first = draw.randint(0, count - 2)
    small = [(KIB * draw.randint(1, 4), first, count)]
    bandwidth = draw.choice([15e6, 40e6, 200e6])
    link = Link(bandwidth, bandwidth * 0.9, bandwidth * 1.2, 1e-5)
    return problem(
        tensors, count, compute=compute, workspace=workspace, small=small, link=link
    )


def _with_optional(tensor: Tensor, uses: frozenset[int]) -> Tensor:
    new = {u for u in uses if u > tensor.touches[0]} - set(tensor.touches)
    optional = tuple(sorted({*tensor.optional, *new}))
    return Tensor(
        tensor.value,
        tensor.nbytes,
        tensor.touches,
        optional,
        tensor.movable,
        tensor.recipe,
    )
