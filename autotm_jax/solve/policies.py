"""Plans that need no solver: what a person would write down."""

from __future__ import annotations

from .problem import Problem
from .schedule import Fetch, Schedule, Store


def offload_everything(problem: Problem) -> Schedule:
    """Every tensor leaves right after each use and comes back right before the next.

    The least that tensors themselves can hold, at whatever cost in time: gaps of three
    segments or more are spent on the host.

    **Arguments:**

    - `problem`: the placement problem.

    **Returns:**

    A `Schedule`.
    """
    stores: list[Store] = []
    fetches: list[Fetch] = []
    for tensor in problem.tensors:
        if not tensor.movable:
            continue
        away = [
            (a, b)
            for a, b in zip(tensor.touches, tensor.touches[1:], strict=False)
            if b - a > 2
        ]
        if away:
            after = away[0][0]
            stores.append(Store(tensor.value, after, after + 2))
            fetches += [Fetch(tensor.value, b - 1, b) for _, b in away]
    return Schedule(tuple(sorted(stores)), tuple(sorted(fetches)))
