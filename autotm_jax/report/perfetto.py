"""The predicted timeline as a trace file, which ui.perfetto.dev opens.

The format is that of Chrome's trace events, in which `jax.profiler` writes its traces,
too, so that both can be looked at side by side.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..simulate import Lane
from .course import Course, Span, course_of
from .files import write_file


if TYPE_CHECKING:
    from ..plan import Plan


_PROCESS = 1

_TITLES = {
    Lane.COMPUTE: "compute",
    Lane.D2H: "device to host",
    Lane.H2D: "host to device",
}


def save_trace(plan: Plan, path: Path) -> None:
    """Writes the course of a step as a trace.

    **Arguments:**

    - `plan`: what is written. Its times are simulated, and the trace says so.
    - `path`: compressed if it ends in `.gz`.

    **Raises:**

    - `ReportError`: if there is nothing to write, or the file cannot be written.
    """
    name = "" if plan.machine is None else plan.machine.name
    found = {"displayTimeUnit": "ms", "traceEvents": events(course_of(plan), name)}
    data = json.dumps(found).encode()
    write_file(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def events(course: Course, name: str) -> list[dict[str, Any]]:
    """Trace events: a track for compute, one for copies each way, and bytes."""
    found = [_named("process_name", f"autotm-jax, simulated: {name}", 0)]
    for thread, (lane, title) in enumerate(_TITLES.items(), start=1):
        spans = [span for span in course.spans if span.lane is lane]
        if spans:
            found.append(_named("thread_name", title, thread))
            found += [_complete(span, thread) for span in spans]
    for k, begin in enumerate(course.begins[:-1]):
        for what, nbytes in (("device", course.device), ("host", course.host)):
            taken = {"bytes": nbytes[k]}
            found.append(_event("C", f"{what} memory", 0, ts=begin * 1e6, args=taken))
    return found


def _complete(span: Span, thread: int) -> dict[str, Any]:
    begin, seconds = span.begin * 1e6, (span.end - span.begin) * 1e6
    args = {"bytes": span.nbytes, "all wait": span.waits} if span.nbytes else {}
    return _event("X", span.name, thread, ts=begin, dur=seconds, args=args)


def _named(what: str, name: str, thread: int) -> dict[str, Any]:
    return _event("M", what, thread, args={"name": name})


def _event(phase: str, name: str, thread: int, **rest: Any) -> dict[str, Any]:
    return {"ph": phase, "name": name, "pid": _PROCESS, "tid": thread, **rest}
