"""Local search: a plan made to fit, then made faster, one tensor at a time.

Where memory is tight, a relaxation rounded to whole tensors breaks the limit a little.
`repair` sends away, at once, what is only waiting at the segments that are over it.
`improve` then tries each tensor in its other ways (stay, come back by recomputation,
move with more time on the link) and takes whatever keeps the limits and shortens the
step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np

from .checker import replay
from .problem import Problem
from .schedule import Fetch, Recompute, Schedule, Store


def repair(problem: Problem, schedule: Schedule, seconds: float) -> Schedule | None:
    """Makes a schedule keep the device limit.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: one whose only fault is to hold too much.
    - `seconds`: wall time to spend at most.

    **Returns:**

    A `Schedule` that passes the checker, or `None` if none was found.
    """
    deadline = time.perf_counter() + seconds
    free = dataclasses.replace(problem, device_limit=float("inf"))
    position = {t.value: i for i, t in enumerate(problem.tensors)}
    while time.perf_counter() < deadline:
        state = replay(free, schedule)
        if state.faults:
            return None
        worst = int(state.device.argmax())
        if state.device[worst] <= problem.device_limit:
            return schedule
        waiting = [
            position[v]
            for v in state.alive(worst)
            if worst not in problem.tensors[position[v]].touches
        ]
        waiting.sort(key=lambda i: -problem.tensors[i].nbytes)
        trials = []
        for index in waiting[:24]:
            tensor = problem.tensors[index]
            if not tensor.movable:
                continue
            away = _away_at_once(problem, schedule, index)
            then = replay(free, away)
            if not then.faults and then.device[worst] < state.device[worst]:
                saved = state.device[worst] - then.device[worst]
                cost = max(0.0, then.makespan - state.makespan)
                trials.append((cost / saved, index, away))
        if not trials:
            return None
        schedule = min(trials, key=lambda t: t[:2])[2]
    return None


def _away_at_once(problem: Problem, schedule: Schedule, index: int) -> Schedule:
    tensor = problem.tensors[index]
    again = {r.use for r in schedule.recomputes if r.value == tensor.value}
    gaps = [
        (a, b)
        for a, b in zip(tensor.touches, tensor.touches[1:], strict=False)
        if b - a > 2 and b not in again
    ]
    others = Schedule(
        tuple(s for s in schedule.stores if s.value != tensor.value),
        tuple(f for f in schedule.fetches if f.value != tensor.value),
        schedule.recomputes,
    )
    return _moved(problem, others, index, gaps, 0.0) if gaps else schedule


def improve(problem: Problem, schedule: Schedule, seconds: float) -> Schedule:
    """Shortens a sound schedule while it stays sound.

    **Arguments:**

    - `problem`: with the limits to keep.
    - `schedule`: a schedule that passes the checker.
    - `seconds`: wall time to spend at most.

    **Returns:**

    A `Schedule` that passes the checker and is at least as fast.
    """
    deadline = time.perf_counter() + seconds
    best = replay(problem, schedule).makespan
    order = sorted(range(len(problem.tensors)), key=lambda i: -_weight(problem, i))
    for _ in range(4):
        before = best
        for index in order:
            for trial in _variants(problem, schedule, index):
                if time.perf_counter() > deadline:
                    return schedule
                state = replay(problem, trial)
                if not state.faults and state.makespan < best * (1 - 1e-6):
                    schedule, best = trial, state.makespan
        if best > before * 0.995:
            break
    return schedule


def _weight(problem: Problem, index: int) -> int:
    return problem.tensors[index].nbytes


def _variants(problem: Problem, schedule: Schedule, index: int) -> Iterator[Schedule]:
    """The schedule with one tensor's moves replaced."""
    tensor = problem.tensors[index]
    value = tensor.value
    others = Schedule(
        tuple(s for s in schedule.stores if s.value != value),
        tuple(f for f in schedule.fetches if f.value != value),
        tuple(r for r in schedule.recomputes if r.value != value),
    )
    if others == schedule:
        return
    yield others
    gaps = [
        (a, b)
        for a, b in zip(tensor.touches, tensor.touches[1:], strict=False)
        if b - a > 2
    ]
    recipe = tensor.recipe
    if recipe is not None:
        again = [Recompute(value, b) for _, b in gaps if b in recipe.seconds]
        if again:
            recomputes = tuple(sorted([*others.recomputes, *again]))
            yield dataclasses.replace(others, recomputes=recomputes)
    if tensor.movable and gaps:
        for stretch in (2.0, 1.1):
            yield _moved(problem, others, index, gaps, stretch)


def _moved(
    problem: Problem,
    others: Schedule,
    index: int,
    gaps: list[tuple[int, int]],
    stretch: float,
) -> Schedule:
    tensor, link = problem.tensors[index], problem.link
    clock = np.concatenate([[0.0], np.cumsum(problem.compute)])
    (first, back), *_ = gaps
    goal = clock[first + 1] + stretch * tensor.nbytes / link.d2h
    done = min(max(int(np.searchsorted(clock, goal)), first + 2), back - 1)
    fetches = []
    for a, b in gaps:
        goal = clock[b] - stretch * tensor.nbytes / link.h2d
        start = int(np.searchsorted(clock, goal, side="right")) - 1
        earliest = done if a == first else a + 1
        fetches.append(Fetch(tensor.value, min(max(start, earliest), b - 1), b))
    return Schedule(
        tuple(sorted([*others.stores, Store(tensor.value, first, done)])),
        tuple(sorted([*others.fetches, *fetches])),
        others.recomputes,
    )
