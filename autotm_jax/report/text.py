"""A plan on one screen of text."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from ..budget import format_bytes
from ..solve import Formulation, Schedule
from .course import course_of
from .loops import loop_notes
from .wording import near, said


if TYPE_CHECKING:
    from ..plan import Plan
    from ..trace import Branch


def summary(plan: Plan) -> str:
    """One screen: limits, predictions, what moves, how the plan was found.

    **Arguments:**

    - `plan`: the plan.

    **Returns:**

    Text of at most about thirty lines.
    """
    rows = [("budget", _budget(plan)), ("status", plan.status.value)]
    if plan.note:
        rows.append(("note", plan.note))
    if plan.machine is not None:
        rows.append(("machine", f"{plan.machine.name} ({plan.machine.source})"))
    if plan.is_untouched and plan.device_bytes is not None:
        rows.append(("device", f"{format_bytes(plan.device_bytes)} compiled"))
    elif plan.device_bytes is not None:
        device = f"{format_bytes(plan.device_bytes)} predicted"
        host = f"{format_bytes(plan.host_bytes)} predicted"
        if plan.realised is not None:
            device += f", {format_bytes(plan.realised.device_bytes)} compiled"
            host += f", {format_bytes(plan.realised.host_bytes)} compiled"
        rows += [("device", device), ("host", host)]
    elif plan.realised is not None:
        rows.append(("device", f"{format_bytes(plan.realised.device_bytes)} compiled"))
    rows += _promise_rows(plan)
    rows += _time_rows(plan)
    rows += _before_rows(plan)
    if not plan.is_untouched:
        moved, again = len(plan.schedule.moved), len(plan.schedule.recomputes)
        rows += [
            ("moved", _values(plan, moved, plan.moved_bytes)),
            ("computed again", _values(plan, again, plan.recomputed_bytes)),
        ]
        rows += _state_rows(plan)
        if plan.formulation is not Formulation.JOINT:
            rows.append(("program", plan.formulation.value))
        rows += _variant_rows(plan)
        rows.append(("solver", _solver(plan)))
    if plan.costs is not None:
        rows += [
            ("times", plan.costs.time_source),
            ("memory", plan.costs.memory_source),
        ]
        rows += [
            ("not timed", f"{count} kinds: {reason}; priced by roofline")
            for reason, count in sorted(plan.costs.not_timed.items())
        ]
        rows += [
            ("left out", f"{count} x {variant}")
            for variant, count in sorted(plan.costs.left_out.items())
        ]
    rows += [("loop", note) for note in loop_notes(plan.program)]
    width = max(len(name) for name, _ in rows)
    lines = ["Plan", *(f"  {name:<{width}}  {text}" for name, text in rows)]
    return near("\n".join(lines + _classes(plan)))


def _values(plan: Plan, count: int, nbytes: int) -> str:
    # Before a plan from a file is applied, there is nothing that has a size.
    size = "" if plan.program is None else f", {format_bytes(nbytes)}"
    return f"{count} value{'s' * (count != 1)}{size}"


def _state_rows(plan: Plan) -> list[tuple[str, str]]:
    if not plan.on_host or plan.program is None:
        return []
    size = format_bytes(plan.program.argument_bytes(plan.on_host))
    return [("state", f"{len(plan.on_host)} leaves, {size} on the host between calls")]


def _budget(plan: Plan) -> str:
    if plan.budget is not None:
        return format_bytes(plan.budget)
    return "none known" if plan.is_untouched else '"min"'


def _promise_rows(plan: Plan) -> list[tuple[str, str]]:
    # Whether XLA kept it. With no budget, only copies were promised.
    found = plan.realised
    if found is None:
        return []
    said, is_kept = [], True
    if plan.budget is not None:
        left = plan.budget - found.device_bytes
        is_kept = left >= 0
        side = "below" if is_kept else "above"
        said.append(f"{format_bytes(abs(left))} {side} the budget")
    if found.copies is not None and plan.schedule.copies:
        said.append(f"{found.copies} copies in the executable")
    if not said:
        return []
    if found.rounds > 1:
        said.append(f"{found.rounds} plans compiled")
    return [("promise", f"{'kept' if is_kept else 'not kept'}: {', '.join(said)}")]


def _time_rows(plan: Plan) -> list[tuple[str, str]]:
    if plan.seconds is None or not plan.unconstrained_seconds:
        return []
    ratio = plan.seconds / plan.unconstrained_seconds
    is_measured = plan.costs is not None and plan.costs.is_measured
    how = "modelled from measured segments" if is_measured else "modelled"
    text = f"{plan.seconds * 1e3:,.2f} ms {how}, {ratio:.3f} x unconstrained"
    return [("step", text)]


def _before_rows(plan: Plan) -> list[tuple[str, str]]:
    # Played event by event; what it is compared to; how much of the copies is hidden.
    program, problem, state = plan.program, plan.problem, plan.replay
    played = plan.simulated_seconds
    if plan.is_untouched or program is None or problem is None or state is None:
        return []
    assert played is not None
    plain = course_of(plan, Schedule())
    device = format_bytes(plain.device[plain.peak])
    before = f"{device}, {said(plain.modelled)}, nothing moved or computed again"
    rows = [
        ("simulated", f"{said(played)}, event by event on two copy engines"),
        ("before", f"{before} (modelled)"),
    ]
    schedule, link = plan.schedule, problem.link
    copied = [(s.value, link.d2h) for s in schedule.stores]
    copied += [(f.value, link.h2d) for f in schedule.fetches]
    if copied:
        total = sum(link.alone(program.nbytes_of(v), rate) for v, rate in copied)
        hidden = max(0.0, 1 - (state.makespan - float(state.compute.sum())) / total)
        taken = f"{said(total)} of copies, {hidden:.0%} of it beside compute"
        rows.append(("overlap", f"{taken} (modelled)"))
    return rows


def _solver(plan: Plan) -> str:
    if plan.saved is not None and plan.program is None:
        return plan.solver or "not known"
    found = [f"MIP gap {plan.gap:.2%}"]
    if plan.bound is not None:
        found.append(f"bound {plan.bound * 1e3:,.2f} ms")
    found.append(f"{plan.solve_seconds:.1f} s")
    return ", ".join(filter(None, [plan.solver, *found]))


def _variant_rows(plan: Plan) -> list[tuple[str, str]]:
    # The segments that do not run by the default.
    picked = Counter(map(_variant, plan.picked))
    return [("runs by", f"{n} x {title}") for title, n in sorted(picked.items())]


def _variant(branch: Branch) -> str:
    planned = branch.planned
    if planned is None or not planned.copies:
        return branch.title
    host = format_bytes(planned.host_bytes)
    return f"{branch.title}: {planned.copies} copies, {host} on the host"


def _classes(plan: Plan) -> list[str]:
    # Values made by the same line of the user's code with the same shape are a class.
    if plan.program is None or plan.is_untouched:
        return []
    program = plan.program
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    moved = [("moved", value) for value in sorted(plan.schedule.moved)]
    again = [("again", item.value) for item in plan.schedule.recomputes]
    for what, value in moved + again:
        counted = counts[what, program.describe(value)]
        counted[0] += 1
        counted[1] += program.nbytes_of(value)
    ranked = sorted(counts.items(), key=lambda item: -item[1][1])
    lines = [
        f"    {what}  {count:>4} x  {format_bytes(size):>12}  {name}"
        for (what, name), (count, size) in ranked[:12]
    ]
    rest = len(ranked) - len(lines)
    if rest > 0:
        lines.append(f"    and {rest} smaller classes")
    return ["  what moves, what is computed again:", *lines] if lines else []
