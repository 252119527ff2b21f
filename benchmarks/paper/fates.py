"""What becomes of each tensor under a synchronous plan, and what else would cost.

Milliseconds per GB are a kernel's beyond those with all of its tensors in DRAM, if this
one tensor is in Optane. A kernel that waits for arithmetic anyway loses nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from autotm_jax.solve import Schedule, Tensor
from autotm_jax.trace import Program, backward_segments

from .posing import Posed
from .study import GB


class Role(enum.Enum):
    """What a tensor is to a training step."""

    KEPT = "activations, read again"
    MASK = "masks of ReLU"
    FORWARD = "forward pass only"
    GRADIENT = "gradients of activations"
    WEIGHT = "gradients of weights"

    @property
    def is_kept(self) -> bool:
        """Whether the forward pass leaves it to the backward pass."""
        return self in (Role.KEPT, Role.MASK)


class Way(enum.Enum):
    """Where a tensor is."""

    STAYS = "in DRAM"
    COPIED = "copied out"
    BORN = "born in Optane"


@dataclasses.dataclass(frozen=True)
class Fate:
    """What becomes of a tensor.

    - `nbytes`, `role`, `way`: how large, what it is, and where.
    - `touches`: segments that make or read it.
    - `leaves`: the segment after which it is copied out, if it is.
    - `early`: segments that touch it before it waits: of what the forward pass leaves
        to the backward pass, those of the forward pass, and its maker else.
    - `slow`: segments that find it in Optane, or leave it there.
    - `is_fetched`: whether it is copied back.
    - `depth`: the part of the forward pass, in seconds, that is over before it is made.
    - `waits`: the part of the step during which it is left alone for longest.
    - `born`: ms per GB of being made in Optane, and read there by `early`.
    - `copied`: ms per GB of being copied there instead.
    - `read`: ms per GB of being read there by all others.
    - `fetched`: ms per GB of being copied back instead.
    """

    nbytes: int
    role: Role
    way: Way
    touches: tuple[int, ...]
    leaves: int | None
    early: tuple[int, ...]
    slow: frozenset[int]
    is_fetched: bool
    depth: float
    waits: float
    born: float
    copied: float
    read: float
    fetched: float

    @property
    def is_away(self) -> bool:
        """Whether it is in Optane at some time."""
        return self.way is not Way.STAYS

    @property
    def price(self) -> float:
        """The least ms per GB for which it may wait in Optane."""
        return min(self.born, self.copied) + min(self.read, self.fetched)

    @property
    def here(self) -> tuple[int, int]:
        """The segments `[first, end)` during which it is in DRAM, before it leaves."""
        if self.way is Way.BORN:
            return self.touches[0], self.touches[0]
        last = self.touches[-1] if self.leaves is None else self.leaves
        return self.touches[0], last + 1


def fates(case: Posed, schedule: Schedule) -> list[Fate]:
    """What becomes of all tensors that a plan decides about.

    **Arguments:**

    - `case`: the step.
    - `schedule`: its plan, by the static or the synchronous program.

    **Returns:**

    A `Fate` for each tensor, in the order of `Problem.tensors`.
    """
    border = backward_segments(case.program)[0]
    begins = np.concatenate([[0.0], np.cumsum(case.problem.compute)])
    leaves = {store.value: store.after for store in schedule.stores}
    fetched = {fetch.value for fetch in schedule.fetches}
    streams: dict[int, set[int]] = defaultdict(set)
    for stream in schedule.streams:
        streams[stream.value].add(stream.at)
    shapes = _weights(case.program)

    def fate(index: int, tensor: Tensor) -> Fate:
        maker, slow = tensor.touches[0], frozenset(streams[tensor.value])
        role = _role(case.program, tensor, border, shapes)
        early = [k for k in tensor.touches if k < border] if role.is_kept else [maker]
        late = tensor.touches[len(early) :]
        gaps = (
            begins[b] - begins[a + 1] for a, b in itertools.pairwise(tensor.touches)
        )
        is_born = maker in slow
        copied = Way.COPIED if tensor.value in leaves else Way.STAYS
        copy = case.problem.link.latency, tensor.nbytes

        def lost(segments: Sequence[int]) -> float:
            return sum(_lost(case, k, index) for k in segments)

        def each(seconds: float) -> float:
            return 1e3 * seconds * GB / tensor.nbytes

        return Fate(
            tensor.nbytes,
            role,
            Way.BORN if is_born else copied,
            tensor.touches,
            leaves.get(tensor.value),
            tuple(early),
            slow,
            tensor.value in fetched,
            float(min(begins[maker] / begins[border], 1.0)),
            float(max(gaps, default=0.0) / begins[-1]),
            each(lost(early)),
            each(copy[0] + copy[1] / case.memories.out),
            each(lost(late)),
            each(copy[0] + copy[1] / case.memories.into),
        )

    return [fate(i, tensor) for i, tensor in enumerate(case.problem.tensors)]


def gigabytes(
    found: Sequence[Fate], is_meant: Callable[[Fate], bool] = lambda _: True
) -> float:
    """GB of some tensors."""
    return sum(fate.nbytes for fate in found if is_meant(fate)) / GB


def _lost(case: Posed, segment: int, index: int) -> float:
    kernel = case.kernels[segment]
    return kernel.time(case.memories, {index}) - kernel.time(case.memories)


def _weights(program: Program) -> set[tuple[int, ...]]:
    # Gradients may come transposed.
    shapes = (program.values[a].aval.shape for a in program.arguments)
    return {tuple(sorted(shape)) for shape in shapes}


def _role(
    program: Program, tensor: Tensor, border: int, weights: set[tuple[int, ...]]
) -> Role:
    aval = program.values[tensor.value].aval
    if tensor.touches[0] >= border:
        is_weight = tuple(sorted(aval.shape)) in weights
        return Role.WEIGHT if is_weight else Role.GRADIENT
    if tensor.touches[-1] < border:
        return Role.FORWARD
    return Role.MASK if aval.dtype == bool else Role.KEPT
