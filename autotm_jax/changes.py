"""From a plan to what XLA compiles otherwise in its segments."""

from __future__ import annotations

from .profile import Changes
from .solve import Problem, Schedule, replay
from .trace import Program


def changes_of(program: Program, problem: Problem, schedule: Schedule) -> Changes:
    """What a schedule changes about what segments read and make.

    **Arguments:**

    - `program`, `problem`: a program and the problem that it poses.
    - `schedule`: a schedule that passes the checker.

    **Returns:**

    `Changes`.
    """
    again: dict[int, list[int]] = {}
    arrivals: dict[int, list[int]] = {}
    for item in (*schedule.fetches, *schedule.recomputes):
        arrivals.setdefault(item.value, []).append(item.use)
    for item in schedule.recomputes:
        if (item.value, item.use) in program.joined:
            again.setdefault(item.use, []).append(item.value)
    back = {value: min(uses) for value, uses in arrivals.items()}
    dropped: dict[int, list[int]] = {}
    stored: dict[int, list[int]] = {}
    tensors = {t.value: t for t in problem.tensors}
    for store in schedule.stores:
        tensor = tensors[store.value]
        if tensor.crossing is None and store.window[0] == (tensor.touches[0] + 1):
            stored.setdefault(tensor.touches[0], []).append(store.value)
    moved, state = schedule.moved, replay(problem, schedule)
    ends = {(v, first): end for v, first, end in state.stays}
    for tensor in problem.tensors:
        made, value = tensor.maker, tensor.value
        is_back = value in back and value not in moved
        if made is not None and is_back and ends.get((value, made)) == made + 1:
            dropped.setdefault(made, []).append(value)
    picks = {p.segment: p.variant for p in schedule.picks}
    return Changes(again, dropped, stored, back, picks)
