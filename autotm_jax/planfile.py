"""Plans as files: what they hold, and whether a plan is one of a program.

A file says what moves and what is computed again by the numbers of values and segments,
each with its name beside it for people to read, and it describes the program that has
those numbers. So a plan that was found once, perhaps for a machine that is not here, is
kept, reviewed and applied.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import compat
from .errors import PlanFileError
from .found import Found, read_found, written
from .solve import Formulation, Pick, Status
from .trace import LOCAL, Order, Program, Segment


if TYPE_CHECKING:
    from .plan import Plan


FORMAT = "autotm-jax plan"

VERSION = 1
"""Of the schema: raised when files of the one before cannot be read."""

_FIGURES = "device_bytes", "host_bytes", "seconds", "unconstrained_seconds"


@dataclasses.dataclass(frozen=True)
class Outline:
    """What tells a program from another, and how the step was written out.

    - `order`, `parts`: see `build_program`.
    - `moves_state`: whether state may be on the host between calls.
    - `formulation`: the boolean program, which says whether loops are looked into.
    - `arguments`: dtype and shape of each, and what the user calls it.
    - `segments`: what each does, and a digest of it.
    - `variants`: by segment, the name of the variant it runs by, if not the default.
    """

    order: Order
    parts: Mapping[int, int]
    moves_state: bool
    formulation: Formulation
    arguments: tuple[tuple[str, str], ...]
    segments: tuple[tuple[str, str], ...]
    variants: Mapping[int, str]

    @staticmethod
    def of(
        program: Program, formulation: Formulation, picks: Sequence[Pick]
    ) -> Outline:
        """The outline of a program, run by these variants."""
        values = [program.values[v] for v in program.arguments]
        return Outline(
            program.order,
            dict(program.parts),
            bool(program.carried),
            formulation,
            tuple((v.aval.str_short(short_dtypes=True), v.source) for v in values),
            tuple((program.title(s), _digest(program, s)) for s in program.segments),
            {p.segment: _variant(program, p) for p in picks},
        )

    def difference(self, other: Outline) -> str:
        """The first thing in which the outline of a step here differs; or nothing."""
        before, now = len(self.arguments), len(other.arguments)
        if before != now:
            return f"it had {before} arguments and has {now}"
        for theirs, ours in zip(self.arguments, other.arguments, strict=True):
            if theirs[0] != ours[0]:
                return f"its {ours[1]} was {theirs[0]} and is {ours[0]}"
        segments = itertools.zip_longest(self.segments, other.segments)
        for number, (theirs, ours) in enumerate(segments):
            if theirs is None or ours is None or theirs[1] != ours[1]:
                return f"segment {number} was {_title(theirs)} and is {_title(ours)}"
        for segment, name in self.variants.items():
            if other.variants.get(segment) != name:
                return f"segment {segment} cannot run by {name!r} here"
        return ""


def _digest(program: Program, segment: Segment) -> str:
    text = segment.body.signature
    if text.startswith(LOCAL):  # it means nothing in another process
        equations = (program.equations[i] for i in segment.body.equations)
        text = ";".join(
            f"{e.eqn.primitive.name}{[str(program.values[v].aval) for v in e.outputs]}"
            for e in equations
        )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _variant(program: Program, pick: Pick) -> str:
    # Nothing, if there is no such variant.
    if not 0 <= pick.segment < len(program.segments):
        return ""
    branches = program.segments[pick.segment].body.branches
    known = 1 <= pick.variant <= len(branches)
    return branches[pick.variant - 1].title if known else ""


def _title(segment: tuple[str, str] | None) -> str:
    return "nothing" if segment is None else f"{segment[0]} [{segment[1]}]"


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a file holds of a plan.

    - `text`: its contents.
    - `name`: what errors call it.
    - `budget`: device bytes; `None` for as little as possible.
    - `found`, `outline`: what was decided, and of which program; `None` for a step that
        is left as it is.
    - `note`, `machine`, `jax`: of the plan, and what it was found for and with.
    - `predicted`: figures of the plan, by the names of its fields.
    """

    text: str
    name: str
    budget: int | None
    found: Found | None
    outline: Outline | None
    note: str
    machine: str
    jax: str
    predicted: Mapping[str, Any]


def dumped(plan: Plan) -> str:
    """A plan as the text of a file.

    **Raises:**

    - `PlanFileError`: if the step could not be planned.
    """
    if plan.saved is not None:
        return plan.saved.text
    if plan.status is Status.UNSUPPORTED:
        raise PlanFileError(f"There is no plan to keep: {plan.note}.")
    entry = {
        "format": FORMAT,
        "version": VERSION,
        "jax": compat.JAX_VERSION,
        "machine": None if plan.machine is None else plan.machine.name,
        "budget": plan.budget,
        "note": plan.note,
        "predicted": {name: getattr(plan, name) for name in _FIGURES},
        "program": None,
    }
    program = plan.program
    if not plan.is_untouched and program is not None:
        entry |= _decided(plan, program)
    return json.dumps(entry, indent=1) + "\n"


def _decided(plan: Plan, program: Program) -> dict[str, Any]:
    outline = Outline.of(program, plan.formulation, plan.schedule.picks)
    figures = plan.seconds or 0.0, plan.bound or 0.0, plan.solve_seconds
    found = Found(plan.status, plan.schedule, *figures, solver=plan.solver)
    used = plan.schedule.moved.union(f.value for f in plan.schedule.fetches)
    values = sorted(used.union(r.value for r in plan.schedule.recomputes))
    return {
        "schedule": written(found),
        "values": {str(v): program.describe(v) for v in values},
        "program": {
            **dataclasses.asdict(outline),
            "order": outline.order.name,
            "formulation": outline.formulation.value,
        },
    }


def loaded(text: str, name: str) -> Saved:
    """What a file says.

    **Arguments:**

    - `text`: its contents.
    - `name`: what errors call it.

    **Returns:**

    A `Saved`.

    **Raises:**

    - `PlanFileError`: if it is no plan, or one of another version.
    """
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanFileError(
            f"{name} is no plan, as it is no JSON ({error})."
        ) from error
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise PlanFileError(
            f"{name} is no plan: it does not say that its format is {FORMAT!r}. Give "
            "a file that Plan.save has written."
        )
    if entry.get("version") != VERSION:
        raise PlanFileError(
            f"{name} is a plan of version {entry.get('version')!r}, and version "
            f"{VERSION} is read here. Plan the step again."
        )
    try:
        return _saved(entry, text, name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanFileError(
            f"{name} is a damaged plan ({type(error).__name__}: {error}). Plan the "
            "step again."
        ) from error


def _saved(entry: Mapping[str, Any], text: str, name: str) -> Saved:
    budget, program = entry["budget"], entry["program"]
    predicted = {key: entry["predicted"][key] for key in _FIGURES}
    numbers = budget, *predicted.values()
    are_numbers = all(n is None or isinstance(n, (int, float)) for n in numbers)
    if not are_numbers or predicted["host_bytes"] is None:
        raise ValueError("a figure is no number")
    if not (budget is None or 0 < budget < math.inf):
        raise ValueError("the budget is none")
    said = str(entry["note"]), str(entry["machine"]), str(entry["jax"])
    if program is None:
        return Saved(text, name, budget, None, None, *said, predicted)
    found = read_found(entry["schedule"])
    if found is None or not _is_sound(found):
        raise ValueError("the schedule is none")
    return Saved(text, name, budget, found, _outline(program), *said, predicted)


def _is_sound(found: Found) -> bool:
    schedule = found.schedule
    copies = schedule.stores, schedule.fetches, schedule.streams
    items = itertools.chain(*copies, schedule.recomputes, schedule.picks)
    numbers = itertools.chain.from_iterable(map(dataclasses.astuple, items))
    figures = found.objective, found.bound
    are_figures = all(isinstance(n, (int, float)) for n in figures)
    are_texts = all(isinstance(text, str) for text in (found.note, found.solver))
    return are_figures and are_texts and all(isinstance(n, int) for n in numbers)


def _outline(entry: Any) -> Outline:
    return Outline(
        Order[entry["order"]],
        {int(k): int(v) for k, v in entry["parts"].items()},
        bool(entry["moves_state"]),
        Formulation(entry["formulation"]),
        _pairs(entry["arguments"]),
        _pairs(entry["segments"]),
        {int(k): str(v) for k, v in entry["variants"].items()},
    )


def _pairs(rows: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(first), str(second)) for first, second in rows)
