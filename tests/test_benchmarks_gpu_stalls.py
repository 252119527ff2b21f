"""Traces of `jax.profiler`: how much of the copies is hidden."""

import gzip
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from benchmarks.gpu.stalls import overlap, profiled, united


def named(kind: str, pid: int, name: str, tid: int = 0) -> dict[str, Any]:
    """What a process or a thread is called."""
    return {"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": {"name": name}}


def span(pid: int, tid: int, name: str, begin: float, end: float) -> dict[str, Any]:
    """An event, in microseconds."""
    times = {"ts": begin, "dur": end - begin}
    return {"ph": "X", "pid": pid, "tid": tid, "name": name, **times}


NAMES = [
    named("process_name", 1, "/device:GPU:0 NVIDIA H100"),
    named("thread_name", 1, "Stream #13(Compute)", 13),
    named("thread_name", 1, "Stream #14(MemcpyD2H)", 14),
    named("thread_name", 1, "Stream #15(MemcpyH2D)", 15),
    named("thread_name", 1, "XLA Ops", 20),
    named("process_name", 2, "/device:GPU:1 NVIDIA H100"),
    named("thread_name", 2, "Stream #13(Compute)", 13),
    named("process_name", 700, "/host:CPU"),
    named("thread_name", 700, "python", 1),
]


def written(path: Path, events: list[dict[str, Any]]) -> Path:
    """A trace in a file."""
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)
    return path


def test_copies_with_and_without_a_kernel_beside_them(tmp_path: Path):
    events = [
        *NAMES,
        span(1, 13, "gemm", 0, 100),
        span(1, 13, "fusion", 100, 150),
        span(1, 13, "MemcpyD2D", 150, 160),  # the device's own work
        span(1, 14, "MemcpyD2H", 50, 80),  # hidden
        span(1, 15, "MemcpyH2D", 140, 200),  # 40 of it wait
        span(1, 15, "MemcpyH2D", 190, 220),  # all but what was counted
        span(1, 13, "gemm", 230, 300),  # after 10 of nothing
        span(1, 20, "gemm", 0, 1000),  # what XLA calls it: no stream
        span(2, 13, "gemm", 0, 1000),  # another GPU
        span(700, 1, "MemcpyH2D", 0, 1000),  # no GPU
        {"ph": "i", "pid": 1, "tid": 13, "name": "mark", "ts": 5},
    ]
    found = overlap(written(tmp_path / "a.trace.json.gz", events))
    assert found is not None
    micro = pytest.approx
    assert found.kernels * 1e6 == micro(230)
    assert found.copies * 1e6 == micro(110)
    assert found.stalled * 1e6 == micro(60)
    assert found.idle * 1e6 == micro(10)


def test_a_step_without_copies(tmp_path: Path):
    events = [*NAMES, span(1, 13, "gemm", 10, 20)]
    found = overlap(written(tmp_path / "a.trace.json.gz", events))
    assert found is not None
    assert (found.copies, found.stalled, found.idle) == (0, 0, 0)


@pytest.mark.parametrize("names", [NAMES, NAMES[-2:], []])
def test_a_trace_of_no_device_says_nothing(tmp_path: Path, names: list[Any]):
    events = [*names, span(700, 1, "call", 0, 1)]
    assert overlap(written(tmp_path / "a.trace.json.gz", events)) is None


def test_spans_that_touch_are_one():
    spans = [(5.0, 7.0), (0.0, 2.0), (2.0, 3.0), (6.0, 9.0), (1.0, 1.5)]
    assert united(spans) == [(0.0, 3.0), (5.0, 9.0)]


def test_a_cpu_has_no_streams():
    ran = []

    def run():
        ran.append(1)
        return jnp.ones(3) + 1

    assert profiled(run) is None
    assert ran == [1]
