"""A plan as a page for the browser: one file that needs nothing else.

The page draws itself from data that is written into it as JSON: times in nanoseconds,
sizes in bytes, and texts as positions in one list of them, so that the file stays
small. Times and bytes are modelled, and the page says so.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..budget import format_bytes
from ..simulate import Lane
from ..solve import Schedule, Way
from ..trace import short_source
from .course import Course, Held, Span, course_of
from .files import write_file
from .text import summary
from .wording import said


if TYPE_CHECKING:
    from ..plan import Plan


_WAYS = list(Way)


class Texts:
    """A list of texts without repetition, which others name by position."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """The position of a text, which is added if it is new."""
        return self._positions.setdefault(text, len(self._positions))

    @property
    def known(self) -> list[str]:
        """The texts, by position."""
        return list(self._positions)


def save_page(plan: Plan, path: Path) -> None:
    """Writes the page of a plan.

    **Arguments:**

    - `plan`: what it shows.
    - `path`: where to.

    **Raises:**

    - `ReportError`: if there is nothing to show, or the file cannot be written.
    """
    write_file(path, page(plan).encode())


def page(plan: Plan) -> str:
    """The page of a plan as HTML."""
    here = resources.files("autotm_jax.report")
    html, style, script = (
        (here / f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "css", "js")
    )
    # Texts come from users: none may end the element that holds the data.
    data = json.dumps(contents(plan), separators=(",", ":")).replace("<", "\\u003c")
    html = html.replace("@STYLE@", style).replace("@SCRIPT@", script)
    return html.replace("@DATA@", data)


def contents(plan: Plan) -> dict[str, Any]:
    """What the page shows, as JSON has it.

    **Arguments:**

    - `plan`: the plan.

    **Returns:**

    - `title`, `figures`, `summary`: what is read first; figures have a label, a text
        and a remark.
    - `budget`: bytes or nothing.
    - `texts`: all others are positions in it.
    - `segments`: texts of what they do.
    - `begins`, `device`, `host`, `always`, `workspace`, `peak`, `phases`: as in a
        `Course`.
    - `before`: `begins` and `device` with nothing moved or computed again.
    - `compute`: when it begins and ends.
    - `copies`: lane, text, begin, end, bytes, whether all wait.
    - `ways`: what can be decided.
    - `held`: value, bytes, texts of aval, source and short source, position in `ways`,
        layer, role, and segments `[first, end)`.

    **Raises:**

    - `ReportError`: for a step that was not analysed.
    """
    course, before = course_of(plan), course_of(plan, Schedule())
    texts = Texts()
    copies = [s for s in course.spans if s.lane is not Lane.COMPUTE]
    found = {
        "title": f"Budget {_budget(plan)}",
        "machine": "" if plan.machine is None else plan.machine.name,
        "figures": _figures(plan, course, before),
        "summary": summary(plan),
        "budget": plan.budget,
        "segments": [texts(title) for title in course.segments],
        "begins": _nanoseconds(course.begins),
        "device": course.device,
        "host": course.host,
        "always": course.always,
        "workspace": course.workspace,
        "peak": course.peak,
        "phases": [(phase.value, *segments) for phase, *segments in course.phases],
        "before": {"begins": _nanoseconds(before.begins), "device": before.device},
        "compute": [
            _nanoseconds((s.begin, s.end))
            for s in course.spans
            if s.lane is Lane.COMPUTE
        ],
        "copies": [_copy(span, texts) for span in copies],
        "ways": [way.value for way in _WAYS],
        "held": [_held(held, texts) for held in course.held],
    }
    return found | {"texts": texts.known}


def _budget(plan: Plan) -> str:
    return '"min"' if plan.budget is None else format_bytes(plan.budget)


def _figures(plan: Plan, course: Course, before: Course) -> list[tuple[str, str, str]]:
    is_measured = plan.costs is not None and plan.costs.is_measured
    how = "modelled from measured segments" if is_measured else "modelled"
    device, device_before, host, host_before = (
        format_bytes(max(nbytes))
        for nbytes in (course.device, before.device, course.host, before.host)
    )
    found = [
        ("Budget", _budget(plan), "of device memory"),
        ("Device, modelled", device, f"{device_before} before"),
        ("Host, modelled", host, f"{host_before} before"),
        (
            f"Step, {how}",
            said(course.modelled),
            f"{course.modelled / before.modelled:.3f} x {said(before.modelled)} before",
        ),
        ("Step, simulated", said(course.seconds), "as drawn below"),
    ]
    if plan.is_untouched and plan.device_bytes is not None:
        compiled = format_bytes(plan.device_bytes)
        found.append(("Executable, compiled", compiled, "as it is"))
    elif plan.device_bytes is not None:
        packed = format_bytes(plan.device_bytes)
        found.append(("Executable, modelled", packed, "on the device, packed"))
    if plan.realised is not None:
        compiled = format_bytes(plan.realised.device_bytes)
        beside = f"and {format_bytes(plan.realised.host_bytes)} on the host"
        found.append(("Executable, compiled", compiled, beside))
    return found


def _copy(span: Span, texts: Texts) -> list[Any]:
    aval, origin, source = span.name.partition(" from ")
    name = texts(aval + origin + short_source(source))
    times = _nanoseconds((span.begin, span.end))
    return [span.lane.value, name, *times, span.nbytes, int(span.waits)]


def _held(held: Held, texts: Texts) -> list[Any]:
    return [
        held.value,
        held.nbytes,
        texts(held.aval),
        texts(held.source),
        texts(short_source(held.source)),
        _WAYS.index(held.way),
        held.layer,
        held.role.value,
        held.spans,
    ]


def _nanoseconds(seconds: tuple[float, ...]) -> list[int]:
    return [round(t * 1e9) for t in seconds]
