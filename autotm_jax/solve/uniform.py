"""A plan that treats all layers alike: what a user would write down as a policy."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import time
from collections.abc import Hashable, Mapping

import numpy as np

from .checker import replay
from .ledger import Ledger
from .problem import Problem
from .schedule import Schedule
from .treatment import Treatment, Way, gaps_of, roots_first


# How often each class is looked at, or more, and after so many looks it is known how
# long one takes.
_LOOKS = 2
_FIRST = 10

LIKE_LAYERS = "every layer is treated alike"
"""What reports call it."""


def uniform(problem: Problem, seconds: float = float("inf")) -> Schedule | None:
    """A plan that treats tensors that look alike in the same way, in all layers.

    As with the policies of `jax.checkpoint`, a class of tensors stays, is moved or is
    computed again as a whole. In each round the class and the way are taken that cost
    the fewest seconds per byte of what is over the device limit, summed over segments,
    until nothing is. Then classes that turn out not to be needed stay after all.

    **Arguments:**

    - `problem`: the placement problem.
    - `seconds`: wall time to spend at most.

    **Returns:**

    A `Schedule` that passes the checker, or `None` if none is found so.
    """
    start = time.perf_counter()
    deadline = start + seconds
    pairs = list(itertools.product(_classes(problem), (Way.OFFLOAD, Way.RECOMPUTE)))
    # By price. Prices rise as others are taken, so only the lowest are looked at again.
    queue = [(0.0, -np.inf, i, members, way) for i, (members, way) in enumerate(pairs)]
    chosen: list[list[int]] = []
    ways: dict[int, Way] = {}
    trials = _Trials(problem)
    present = trials.of(ways)
    for looked in itertools.count(1):
        over, taken = present.over, time.perf_counter() - start
        if not over:
            break
        if not queue or taken > seconds:
            return None
        if looked > _FIRST and taken / looked * _LOOKS * len(pairs) > seconds:
            return None  # nor would it be found in that time
        _, _, number, members, way = heapq.heappop(queue)
        if members in chosen:
            continue  # in the other way
        trial = ways | dict.fromkeys(members, way)
        found = trials.of(trial)
        relief = over - found.over
        if found.faults or relief <= 0:
            continue
        price = max(0.0, found.seconds - present.seconds) / relief
        if queue and (price, -relief) > queue[0][:2]:
            heapq.heappush(queue, (price, -relief, number, members, way))
        else:
            ways, present = trial, found
            chosen.append(members)
    ways = _needed(trials, ways, chosen, deadline)
    schedule = trials.schedule(ways)
    return None if replay(problem, schedule).faults else schedule


def _needed(
    trials: _Trials,
    ways: dict[int, Way],
    chosen: list[list[int]],
    deadline: float,
) -> dict[int, Way]:
    # Without the classes that others chosen later make needless, first ones first.
    present = trials.of(ways)
    for members in chosen:
        if time.perf_counter() > deadline:
            break
        trial = {i: way for i, way in ways.items() if i not in members}
        found = trials.of(trial)
        if not found.over and not found.faults and found.seconds <= present.seconds:
            ways, present = trial, found
    return ways


@dataclasses.dataclass(frozen=True)
class _Trial:
    """What comes of a treatment.

    - `over`: bytes over the device limit, summed over segments.
    - `seconds`: of the step.
    - `faults`: rules that are broken, other than the device limit.
    """

    over: float
    seconds: float
    faults: int


class _Trials:
    """Treatments of one problem. They differ little, and so do their sums."""

    def __init__(self, problem: Problem):
        self.problem, self.order = problem, roots_first(problem)
        self.ledger = Ledger(problem, Schedule())

    def schedule(self, ways: Mapping[int, Way]) -> Schedule:
        """A treatment as a schedule."""
        return Treatment(self.problem, self.order, ways).schedule()

    def of(self, ways: Mapping[int, Way]) -> _Trial:
        """What comes of a treatment."""
        ledger, problem = self.ledger, self.problem
        ledger.become(self.schedule(ways))
        over = float(np.maximum(0.0, ledger.device() - problem.device_limit).sum())
        # With the tolerance of the checker.
        host_over = ledger.host_peak() > problem.host_limit * (1 + 1e-9) + 1
        return _Trial(over, ledger.seconds(), ledger.faults + host_over)


def _classes(problem: Problem) -> list[list[int]]:
    # The same tensor in every layer, by what a problem says about it: bytes, and the
    # seconds that it takes to compute it again where it is wanted.
    classes: dict[Hashable, list[int]] = {}
    for index, tensor in enumerate(problem.tensors):
        gaps = gaps_of(tensor, tensor.touches)
        if not gaps and tensor.carried is None:
            continue
        known = tensor.recipe.seconds if tensor.recipe is not None else {}
        seconds = tuple(known.get(use) for _, use in gaps)
        sizes = tensor.nbytes, tensor.stacked, tensor.times
        is_carried = tensor.carried is not None
        kind = sizes, len(tensor.touches), tensor.movable, seconds, is_carried
        classes.setdefault(kind, []).append(index)
    return list(classes.values())
