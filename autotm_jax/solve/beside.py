"""Copies laid beside segments without a program, by prices for device memory.

Of the asynchronous program of a deep network already the relaxation takes longer than
many a search. But tensors only meet in what they share: the memory of the device, and
the compute that hides copies. So each in turn takes its best route beside those of all
others, at a price for every byte and segment, and where the limit is broken prices
rise, and fall where there is room: negotiated congestion, as circuits are routed
(McMurchie and Ebeling, PathFinder, FPGA 1995). Whenever all tensors had their turn, the
plan is made to fit by higher prices, and then tensors that turn out not to be needed
away stay after all, those first that cost most.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from .checker import replay
from .deadline import Deadline
from .problem import Problem
from .routes import Routes
from .schedule import Schedule


# How often all tensors take their turn. From then on prices hardly change.
_ROUNDS = 12

# The logarithm by which prices change at most in the first round, and from each round
# to the next, a part of that. They change less where less than this part of the limit
# is taken beyond it, or left.
_STEP, _SETTLING = 1.0, 0.85
_NEARLY = 0.1

# To make a plan fit: prices rise by this factor, and by as much more each time, from
# this part of the highest on, so many times at most.
_RISE, _FLOOR = 1.1, 0.02
_RISES = 20

# Passes over the tensors that are away, at most, in which each takes its best route.
_PASSES = 4


def lay_beside(
    problem: Problem, schedule: Schedule, reach: int, seconds: float
) -> Schedule:
    """A schedule of the asynchronous program that is no slower than another one.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: one that keeps them. What it streams, and how segments run, stays.
    - `reach`: how many segments from a touch a copy may run beside.
    - `seconds`: wall time to spend, give or take a round.

    **Returns:**

    A `Schedule` that passes the checker and, where both directions of the link add up,
    takes as long at most.
    """
    deadline = Deadline(seconds)
    given = Routes(problem, schedule, reach)
    best = given.copy()
    _improve(best)
    priced = given.copy()
    for index, route in priced.by_tensor.items():
        priced.change(index, (None,) * len(route))
    # A byte is worth going and coming back once, wherever it may be too many.
    is_short = priced.over() > 0
    both = 1 / problem.link.d2h + 1 / problem.link.h2d
    prices = both * is_short / max(1, is_short.sum())
    # The largest have the most to choose, and the others fill what they leave.
    order = sorted(priced.by_tensor, key=lambda i: -problem.tensors[i].nbytes)
    for number in range(_ROUNDS if is_short.any() else 0):
        if deadline.left() <= 0:
            break
        _settle(priced, order, prices)
        found = priced.copy()
        if _made_to_fit(found, order, prices):
            _improve(found)
            best = min(best, found, key=lambda routes: routes.seconds())
        beyond = priced.over() / (_NEARLY * problem.device_limit + 1)
        step = _STEP * _SETTLING**number
        prices *= np.exp(step * np.clip(beyond, -1.0, 1.0))
    laid = best.schedule()
    is_faster = best.seconds() < given.seconds()
    return laid if is_faster and not replay(problem, laid).faults else schedule


def _settle(routes: Routes, order: Sequence[int], prices: np.ndarray) -> None:
    until = np.concatenate([[0.0], np.cumsum(prices)])
    for index in order:
        routes.settle(index, until)


def _made_to_fit(routes: Routes, order: Sequence[int], prices: np.ndarray) -> bool:
    """Raises prices until the limit is kept; whether that comes to an end."""
    prices = prices.copy()
    for number in range(1, _RISES + 1):
        over = routes.over() > 0
        if not over.any():
            return True
        least = _FLOOR * prices.max()
        prices[over] = np.maximum(_RISE**number * prices[over], least)
        until = np.concatenate([[0.0], np.cumsum(prices)])
        count = np.concatenate([[0], np.cumsum(over)])
        for index in order:
            # Only what is there where the limit is still broken, so that no more leaves
            # than has to.
            if routes.held(index, count) and routes.is_over(index):
                routes.settle(index, until)
    return False


def _improve(routes: Routes) -> None:
    """Lets every tensor that is away take its best route within the limit."""
    away = [i for i, route in routes.by_tensor.items() if any(route)]
    queue = [(-routes.saved(index), index) for index in away]
    heapq.heapify(queue)
    # The dearest first. What others cost falls as some stay, so only what is next is
    # looked at again.
    while queue:
        _, index = heapq.heappop(queue)
        now = -routes.saved(index)
        if queue and now > queue[0][0]:
            heapq.heappush(queue, (now, index))
        else:
            routes.settle(index)
    for _ in range(_PASSES):
        if not sum(routes.settle(index) for index in away):
            break
