"""Traces of the predicted timeline."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.report.course import Span, course_of
from autotm_jax.report.perfetto import events
from autotm_jax.simulate import Lane

from .test_course import plan_of


@pytest.mark.parametrize("name", ["step.json", "step.json.gz"])
def test_a_trace_is_written(name: str, tmp_path: Path):
    plan, path = plan_of("min"), tmp_path / name
    plan.save_trace(path)
    data = path.read_bytes()
    found = json.loads(gzip.decompress(data) if name.endswith("gz") else data)
    assert found["displayTimeUnit"] == "ms"
    course = course_of(plan)
    spans = [e for e in found["traceEvents"] if e["ph"] == "X"]
    assert len(spans) == len(course.spans)
    end = max(e["ts"] + e["dur"] for e in spans)
    assert end == pytest.approx(1e6 * course.seconds)
    counted = [e for e in found["traceEvents"] if e["name"] == "device memory"]
    assert [e["args"]["bytes"] for e in counted] == list(course.device)
    (process,) = (e for e in found["traceEvents"] if e["name"] == "process_name")
    assert process["args"]["name"] == "autotm-jax, simulated: h100-sxm"


def kinds(trace: dict[str, Any], phases: str) -> dict[tuple[str, str], type]:
    """By phase and key of its events, whether the values are numbers or what else."""
    number = {int: float}
    return {
        (event["ph"], key): number.get(type(value), type(value))
        for event in trace["traceEvents"]
        if event.get("ph", "") in phases
        for key, value in event.items()
    }


def test_the_events_are_as_those_that_jax_writes_for_perfetto(tmp_path: Path):
    with jax.profiler.trace(tmp_path, create_perfetto_trace=True):
        jnp.ones(3).block_until_ready()
    (written,) = tmp_path.rglob("perfetto_trace.json.gz")
    theirs = json.loads(gzip.decompress(written.read_bytes()))
    path = tmp_path / "step.json"
    plan_of("min").save_trace(path)
    ours = json.loads(path.read_text())
    assert ours.keys() == theirs.keys()
    # Spans and the names of tracks; theirs has no counters.
    known = kinds(theirs, "MX")
    assert {phase for phase, _ in known} == {"M", "X"}
    assert kinds(ours, "MX").items() <= known.items()
    named = {e["name"] for e in ours["traceEvents"] if e["ph"] == "M"}
    assert named >= {"process_name", "thread_name"}


def test_nothing_overlaps_on_a_track():
    course = course_of(plan_of("min"))
    tracks = defaultdict(list)
    for event in events(course, "h100"):
        if event["ph"] == "X":
            tracks[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(tracks) >= len(Lane)
    for spans in tracks.values():
        for (_, end), (begin, _) in itertools.pairwise(sorted(spans)):
            assert end <= begin * (1 + 1e-9)


def test_copies_say_how_much_they_move_and_who_waits():
    course = course_of(plan_of("min"))
    spans = [Span(Lane.D2H, "a", 0, 2, 8), Span(Lane.H2D, "b", 1, 3, 8, waits=True)]
    course = dataclasses.replace(course, spans=tuple(spans))
    found = [e for e in events(course, "h100") if e["ph"] == "X"]
    assert [e["tid"] for e in found] == [2, 3]
    assert [e["args"]["all wait"] for e in found] == [False, True]
    assert {e["args"]["bytes"] for e in found} == {8}


def test_a_path_that_cannot_be_written(tmp_path: Path):
    path = tmp_path / "missing" / "step.json"
    with pytest.raises(autotm.ReportError) as caught:
        plan_of("min").save_trace(path)
    assert str(caught.value) == (
        f"{path} could not be written (No such file or directory). Name a file in a "
        "directory that exists and may be written to."
    )
