"""From a plan to what XLA compiles otherwise in its segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from .emit import carried_on_host
from .machine import Target
from .profile import Changes, Costs, as_planned, recomputations_apart
from .solve import Problem, Schedule, Tensor, replay
from .trace import Program, recomputed_together


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
    apart: dict[int, list[int]] = {}
    for item in schedule.recomputes:
        if (item.value, item.use) in program.joined:
            again.setdefault(item.use, []).append(item.value)
        else:
            apart.setdefault(item.use, []).append(item.value)
    back = {value: min(uses) for value, uses in arrivals.items()}
    dropped: dict[int, list[int]] = {}
    stored: dict[int, list[int]] = {}
    tensors = {t.value: t for t in problem.tensors}
    for store in schedule.stores:
        tensor, value, made = tensors[store.value], store.value, None
        if tensor.carried is not None:  # what takes its place is stored
            value, made = program.carried[value], tensor.carried.made[0]
        elif tensor.crossing is None:
            made = tensor.maker
        if made is not None and store.window[0] == made + 1:
            stored.setdefault(made, []).append(value)
    moved, state = schedule.moved, replay(problem, schedule)
    ends = {(v, first): end for v, first, end in state.stays}
    for tensor in problem.tensors:
        made, value = tensor.maker, tensor.value
        is_back = value in back and value not in moved
        if made is not None and is_back and ends.get((value, made)) == made + 1:
            dropped.setdefault(made, []).append(value)
    gone: dict[int, set[int]] = {}
    for i, (value, _, end) in enumerate(state.stays):
        tensor, at = tensors[value], end - 1
        # Of what is on the host between steps, nothing stays after the last touch.
        leaves = at < tensor.touches[-1] or tensor.carried is not None
        is_made = at == tensor.maker or i in state.successors
        if value in back and at in tensor.touches and leaves and not is_made:
            gone.setdefault(at, set()).add(value)
    picks = {p.segment: p.variant for p in schedule.picks}
    copies = [s.after for s in schedule.stores] + [f.use for f in schedule.fetches]
    copies += [s.at for s in schedule.streams]
    there = carried_on_host(program, schedule)
    away = frozenset(there).union(there.values())
    rest = _together(program, apart), gone, frozenset(copies), away
    return Changes(again, dropped, stored, back, picks, *rest)


def _together(
    program: Program, apart: Mapping[int, Sequence[int]]
) -> dict[int, tuple[int, ...]]:
    """By value computed again, those that the same run makes, wherever that is done."""
    found: dict[int, set[int]] = {}
    for values in apart.values():
        for fragment in recomputed_together(program, values).values():
            for value in fragment.writes:
                others = found.setdefault(value, set(fragment.writes))
                others.intersection_update(fragment.writes)
    return {value: tuple(sorted(others)) for value, others in found.items()}


def as_emitted(
    problem: Problem,
    schedule: Schedule,
    program: Program,
    costs: Costs,
    target: Target,
) -> Problem:
    """A problem with the workspace that segments have under a plan.

    **Arguments:**

    - `problem`, `schedule`: a problem and a schedule that passes the checker.
    - `program`, `costs`, `target`: what poses the problem, and where it runs.

    **Returns:**

    The `Problem` with the workspace and the timelines of what XLA compiles otherwise
    than a segment alone, and of what is computed again apart from any segment.
    """
    changes = changes_of(program, problem, schedule)
    workspace, variants = list(problem.workspace), dict(problem.variants)
    timelines = dict(problem.timelines)
    segments = as_planned(program, costs, changes, target)
    for k, (change, timeline) in segments.items():
        if k in changes.picks:
            variants[k] = tuple(
                dataclasses.replace(
                    v, workspace=v.workspace + change, timeline=timeline
                )
                for v in variants[k]
            )
        else:
            workspace[k] += change
            timelines.pop(k, None)
            if timeline is not None:
                timelines[k] = timeline
    alone = recomputations_apart(program, changes, target)
    tensors: list[Tensor] = []
    apart = dict(problem.apart)
    for tensor in problem.tensors:
        found, recipe = alone.get(tensor.value), tensor.recipe
        if found is not None and recipe is not None:
            recipe = dataclasses.replace(recipe, workspace=max(0, found.nbytes))
            tensor = dataclasses.replace(tensor, recipe=recipe)
            if found.timeline is not None:
                uses = {(tensor.value, k) for k in recipe.seconds}
                uses -= {*program.joined}
                if tensor.value == changes.apart[tensor.value][0]:
                    apart.update(dict.fromkeys(uses, found.timeline))
        tensors.append(tensor)
    return dataclasses.replace(
        problem,
        workspace=tuple(workspace),
        tensors=tuple(tensors),
        variants=variants,
        timelines=timelines,
        apart=apart,
    )
