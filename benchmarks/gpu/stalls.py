"""How much of the copies is hidden: what a profile says of a step.

`jax.profiler` writes a trace in the format of Chrome's tracing, in which each GPU is a
process and each stream a thread. Copies between device and host are events called
`MemcpyD2H` and `MemcpyH2D`; whatever else is on a stream is work of the device itself.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax


Span = tuple[float, float]

_DEVICE = "/device:GPU"
_STREAM = "Stream"
_COPIES = ("memcpyd2h", "memcpyh2d")


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What a device did over a profile, in seconds.

    - `kernels`: in which at least one kernel ran.
    - `copies`: in which something was copied to the host or from it.
    - `stalled`: in which something was copied and no kernel ran.
    - `idle`: between the first event and the last one, in which there was neither.
    """

    kernels: float
    copies: float
    stalled: float
    idle: float


def profiled(run: Callable[[], Any]) -> Overlap | None:
    """Runs something under the profiler.

    **Arguments:**

    - `run`: what to run. Its result is waited for.

    **Returns:**

    An `Overlap`; `None` if there is no trace of a GPU.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of Python would be an event
    with tempfile.TemporaryDirectory() as directory:
        jax.profiler.start_trace(directory, profiler_options=options)
        try:
            jax.block_until_ready(run())
        finally:
            jax.profiler.stop_trace()
        traces = sorted(Path(directory).glob("**/*.trace.json.gz"))
        return overlap(traces[-1]) if traces else None


def overlap(trace: Path) -> Overlap | None:
    """Reads a trace.

    **Arguments:**

    - `trace`: a `.trace.json.gz` of `jax.profiler`.

    **Returns:**

    An `Overlap`; `None` if no event of it is on a stream of a GPU.
    """
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    streams = _streams(events)
    kernels: list[Span] = []
    copies: list[Span] = []
    for event in events:
        if event.get("ph") != "X" or (event["pid"], event.get("tid")) not in streams:
            continue
        span = event["ts"] * 1e-6, (event["ts"] + event.get("dur", 0)) * 1e-6
        is_copy = event["name"].lower().startswith(_COPIES)
        (copies if is_copy else kernels).append(span)
    if not kernels and not copies:
        return None
    kernels, copies = united(kernels), united(copies)
    busy = united([*kernels, *copies])
    both = _length(kernels) + _length(copies) - _length(busy)
    window = busy[-1][1] - busy[0][0]
    return Overlap(
        _length(kernels),
        _length(copies),
        _length(copies) - both,
        window - _length(busy),
    )


def united(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, those that touch each other made one."""
    out: list[Span] = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1] = out[-1][0], max(out[-1][1], end)
        else:
            out.append((begin, end))
    return out


def _streams(events: Iterable[dict[str, Any]]) -> set[tuple[Any, Any]]:
    """Process and thread of every stream of the first GPU."""
    named = [e for e in events if e.get("ph") == "M"]
    gpus = sorted(
        (e["args"]["name"], e["pid"])
        for e in named
        if e["name"] == "process_name" and _DEVICE in e["args"]["name"]
    )
    if not gpus:
        return set()
    first = gpus[0][1]
    return {
        (e["pid"], e["tid"])
        for e in named
        if e["name"] == "thread_name"
        and e["pid"] == first
        and e["args"]["name"].startswith(_STREAM)
    }


def _length(spans: Iterable[Span]) -> float:
    return sum(end - begin for begin, end in spans)
