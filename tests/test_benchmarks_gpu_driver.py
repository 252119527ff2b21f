"""Tasks one after the other: in time, and whatever becomes of their processes."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotm_jax.machine import describe
from benchmarks.gpu import driver
from benchmarks.gpu.doing import NO_TIME
from benchmarks.gpu.driver import Box, in_a_process, work_off
from benchmarks.gpu.results import Results, read_results
from benchmarks.gpu.row import Row
from benchmarks.gpu.tasks import Task
from benchmarks.gpu.ways import AT_TIGHT, ON_CARD, PLAIN, REMAT

from .gpu_rows import setting


GPT = "gpt-12"
WAYS = [PLAIN.name, REMAT.name, AT_TIGHT.name]
TIMES = Task("times", GPT, WAYS)

Does = Callable[[Task, Callable[[dict[str, Any]], None]], str]


def said(task: Task, way: str, **known: Any) -> dict[str, Any]:
    """What a process says of a row that it has measured."""
    found = {"samples": (1.0, 1.0, 1.0), **known}
    batch = task.batch or 16
    return {"row": dataclasses.asdict(Row(task.case, batch, way, **found))}


def all_of_it(task: Task, take: Callable[[dict[str, Any]], None]) -> str:
    """A process that does everything."""
    take({"batch": {task.case: 16}})
    for way in task.ways:
        take(said(task, way))
    return ""


@pytest.fixture
def found(tmp_path: Path) -> Results:
    """Results of a run that begins."""
    return Results(tmp_path / "results.json", setting(), {})


def works(
    monkeypatch: pytest.MonkeyPatch,
    found: Results,
    does: Does,
    *tasks: Task,
    **box: Any,
) -> list[Task]:
    """Works tasks off with processes that are made up; returns what they were given."""
    sent: list[Task] = []

    def in_no_process(task: Task, env: Any, seconds: float, take: Any) -> str:
        sent.append(task)
        return does(task, take)

    monkeypatch.setattr(driver, "in_a_process", in_no_process)
    work_off(tasks, found, {}, Box(**{"seconds": 1000.0, **box}), lambda text: None)
    return sent


def test_what_is_done_is_saved_and_not_done_again(
    monkeypatch: pytest.MonkeyPatch, found: Results
):
    def checks(task: Task, take: Callable[[dict[str, Any]], None]) -> str:
        for n, way in enumerate(task.ways, 1):
            take({"batch": {GPT: 16}, **said(task, way)})
            assert len(read_results(found.path).rows) == n  # after each of them
        return ""

    (sent,) = works(monkeypatch, found, checks, TIMES)
    assert (list(sent.ways), sent.batch) == (WAYS, None)
    again = read_results(found.path)
    assert works(monkeypatch, again, all_of_it, TIMES) == []
    # More of it: what it is compared to runs again, and its row stays as it was.
    more = Task("times", GPT, [PLAIN.name, ON_CARD.name])
    kept = again.rows[GPT, 16, PLAIN.name]

    def slower(task: Task, take: Callable[[dict[str, Any]], None]) -> str:
        for way in task.ways:
            take(said(task, way, samples=(9.0,)))
        return ""

    (sent,) = works(monkeypatch, again, slower, more)
    assert (list(sent.ways), sent.batch) == ([PLAIN.name, ON_CARD.name], 16)
    assert again.rows[GPT, 16, PLAIN.name] == kept
    assert again.rows[GPT, 16, ON_CARD.name].seconds == 9.0


def test_what_is_only_compiled_is_not_compiled_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    found = Results(tmp_path / "a.json", setting("compiled"), {"batches": {GPT: 16}})
    found.take(said(TIMES, PLAIN.name, device_bytes=100))
    (sent, *_) = works(monkeypatch, found, lambda task, take: "no", TIMES)
    assert list(sent.ways) == [REMAT.name, AT_TIGHT.name]
    assert (sent.plain, sent.full) == (100, None)


def test_a_process_that_ends_costs_one_row(
    monkeypatch: pytest.MonkeyPatch, found: Results
):
    def ends(task: Task, take: Callable[[dict[str, Any]], None]) -> str:
        take({"batch": {GPT: 16}})
        for way in task.ways:
            if way == REMAT.name:
                return "the process ended by signal 11"
            take(said(task, way))
        return ""

    sent = works(monkeypatch, found, ends, TIMES)
    # The second process goes on with the rest.
    assert [list(task.ways) for task in sent] == [WAYS, [PLAIN.name, AT_TIGHT.name]]
    rows = {row.way: row for row in found.rows.values()}
    assert rows[REMAT.name].error == "the process ended by signal 11"
    assert rows[AT_TIGHT.name].seconds == 1.0
    assert found.left == [] and found.failed == {}


def test_a_process_that_ends_while_it_runs_them(
    monkeypatch: pytest.MonkeyPatch, found: Results
):
    def ends(task: Task, take: Callable[[dict[str, Any]], None]) -> str:
        take({"batch": {GPT: 16}})
        for way in task.ways:
            take(said(task, way, samples=(), device_bytes=7))
        take(said(task, PLAIN.name))
        return "no answer within 9 s"

    assert len(works(monkeypatch, found, ends, TIMES)) == 1
    rows = {row.way: row for row in found.rows.values()}
    assert rows[PLAIN.name].error == ""
    assert rows[REMAT.name].error == "no answer within 9 s"
    assert rows[REMAT.name].device_bytes == 7


def test_a_task_that_fails_as_a_whole(monkeypatch: pytest.MonkeyPatch, found: Results):
    peak = Task("peak", GPT, [PLAIN.name])
    found.take({"batch": {GPT: 16}})
    machine = Task("machine", GPT)
    sent = works(monkeypatch, found, lambda task, take: "", machine, peak)
    assert len(sent) == 2
    assert set(found.failed.values()) == {"it said nothing"}
    assert works(monkeypatch, found, all_of_it, machine, peak) == []
    found.forget_failures()
    assert len(works(monkeypatch, found, lambda task, take: "bad", machine, peak)) == 2
    assert set(found.failed.values()) == {"bad"}


def test_nothing_begins_that_would_not_end_in_time(
    monkeypatch: pytest.MonkeyPatch, found: Results
):
    other = Task("times", "adam-16", [PLAIN.name, AT_TIGHT.name])
    beyond = Task("times", GPT, [ON_CARD.name], 4)
    sent = works(monkeypatch, found, all_of_it, TIMES, other, beyond, seconds=40.0)
    assert sent == []
    assert found.left == [
        f"times of gpt-12: {', '.join(WAYS)} ({NO_TIME})",
        f"times of adam-16: {PLAIN.name}, {AT_TIGHT.name} ({NO_TIME})",
        f"times of gpt-12 at 4 x plain's largest batch: {ON_CARD.name} (the largest "
        "batch of plain jax.jit is not known)",
    ]
    # What a workload took says what more of it may take.
    found.took["adam-16"] = 5.0
    (sent,) = works(monkeypatch, found, all_of_it, TIMES, other, seconds=40.0)
    assert sent.case == "adam-16"
    assert sent.estimate == 5.0
    assert sent.seconds == pytest.approx(10.0)


def test_what_a_process_had_no_time_for_is_left(
    monkeypatch: pytest.MonkeyPatch, found: Results
):
    def some(task: Task, take: Callable[[dict[str, Any]], None]) -> str:
        take({"batch": {GPT: 16}})
        take(said(task, PLAIN.name))
        for way in task.ways[1:]:
            take(said(task, way, samples=(), error=NO_TIME))
        return ""

    works(monkeypatch, found, some, TIMES)
    assert found.left == [f"times of gpt-12: {', '.join(WAYS[1:])} ({NO_TIME})"]
    # That is no failure: the next run does it.
    assert found.missing(TIMES) == tuple(WAYS[1:])


def task_of_a_process(**known: Any) -> Task:
    """A task that a real process gets, on JAX's CPU."""
    machine = dataclasses.asdict(describe("cpu"))
    common = {"small": True, "platform": "cpu", "machine": machine, "batch": 4}
    return Task("peak", GPT, [PLAIN.name], **{**common, **known})


def test_a_real_process_that_fails():
    messages: list[dict[str, Any]] = []
    reason = in_a_process(task_of_a_process(), os.environ, 300, messages.append)
    said = "RuntimeError: This device does not report the peak of its memory."
    assert reason == said
    assert messages == [{"failed": said}]


def test_a_real_process_that_takes_too_long():
    reason = in_a_process(task_of_a_process(), os.environ, 0.2, lambda message: None)
    assert reason == "no answer within 0 s"


def test_a_real_process_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Fatal Python error >&2\nkill -SEGV $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(driver.sys, "executable", str(python))
    reason = in_a_process(task_of_a_process(), os.environ, 60, lambda message: None)
    assert reason == "the process ended by signal 11: Fatal Python error"
