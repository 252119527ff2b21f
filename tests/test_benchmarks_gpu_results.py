"""Results in a file: resumed, merged, and whole after every row."""

import dataclasses
import datetime
import json
from pathlib import Path

import pytest

from benchmarks.gpu import results as module
from benchmarks.gpu.results import ResultsError, open_results, read_results, write
from benchmarks.gpu.row import Row, of_json
from benchmarks.gpu.tasks import Task
from benchmarks.gpu.ways import AT_TIGHT, ON_CARD, PLAIN, REMAT

from .gpu_rows import results, row, setting


GPT = "gpt-12"


def test_a_row_is_read_as_it_was_written():
    made = row(GPT, PLAIN, 0.5, losses=(1.0, 2.0), notes=("a",), device_bytes=7)
    text = json.dumps({**dataclasses.asdict(made), "of another version": 1})
    assert of_json(json.loads(text)) == made


def test_what_a_row_comes_to():
    made = Row(
        GPT,
        16,
        PLAIN.name,
        samples=(1.0, 1.1, 1.3),
        plain_seconds=1.0,
        modelled_seconds=0.99,
        simulated_seconds=1.21,
        predicted_bytes=100,
        peak_bytes_in_use=103,
        losses=(2.0, 1.0),
        plain_losses=(2.0, 1.1, 7.0),
    )
    assert made.seconds == 1.1
    assert made.spread == pytest.approx(0.1 / 1.1)
    assert made.of_plain == 1.1
    assert made.model_error == pytest.approx(-0.1)
    assert made.simulator_error == pytest.approx(0.1)
    assert made.bytes_error == pytest.approx(0.03)
    assert made.loss_difference == pytest.approx(0.1 / 1.1)
    empty = Row(GPT, 16, PLAIN.name)
    assert empty.seconds is empty.spread is empty.loss_difference is None


def test_what_is_done_is_not_missing():
    task = Task("times", GPT, [PLAIN.name, REMAT.name, AT_TIGHT.name])
    found = results(
        row(GPT, PLAIN, 1.0), row(GPT, REMAT), row(GPT, AT_TIGHT, error="e")
    )
    # One was compiled, and has not been run.
    assert found.missing(task) == (REMAT.name,)
    compiled = results(
        row(GPT, PLAIN, device_bytes=1),
        row(GPT, REMAT, device_bytes=1),
        form="compiled",
    )
    assert compiled.missing(task) == (AT_TIGHT.name,)
    found.forget_failures()
    assert found.missing(task) == (REMAT.name, AT_TIGHT.name)
    beyond = Task("times", GPT, [ON_CARD.name], 4)
    assert found.batch_of(beyond) is None
    found.take({"largest": {"case": GPT, "way": PLAIN.name, "batch": 48}})
    assert found.batch_of(beyond) == 192
    assert found.missing(Task("largest", GPT, [PLAIN.name])) is None
    found.failed[str(beyond)] = "it said nothing"
    assert found.missing(beyond) is None


def test_a_peak_stays_with_its_row():
    found = results(row(GPT, PLAIN, 1.0))
    task = Task("peak", GPT, [PLAIN.name])
    assert found.missing(task) == (PLAIN.name,)
    found.take({"peak": {"key": [GPT, 16, PLAIN.name], "bytes": 99}})
    found.take({"row": dataclasses.asdict(row(GPT, PLAIN, 2.0))})
    (kept,) = found.rows.values()
    assert (kept.peak_bytes_in_use, kept.seconds) == (99, 2.0)
    assert found.missing(task) is None


def test_budgets_are_relative_to_rows():
    found = results(row(GPT, PLAIN, device_bytes=100), row(GPT, REMAT, device_bytes=40))
    task = Task("times", GPT, [AT_TIGHT.name])
    assert found.relative_to(task) == {"plain": 100, "full": 40}
    assert found.relative_to(Task("times", "adam-16")) == {"plain": None, "full": None}


def test_a_file_is_gone_on_with(tmp_path: Path):
    today = datetime.date.today().isoformat()
    first = open_results(setting(), tmp_path, None)
    assert first.path == tmp_path / f"h100-{today}.json"
    first.take({"row": dataclasses.asdict(row(GPT, PLAIN, 1.0)), "batch": {GPT: 16}})
    first.take({"machine": {"name": "H100"}})
    first.save()
    again = open_results(setting(), tmp_path, None)
    assert again.as_json() == first.as_json()
    assert again.path == first.path
    # Rows of another version are no rows of this table.
    other = open_results(setting(commit="fff"), tmp_path, None)
    assert other.path == tmp_path / f"h100-{today}-2.json"
    assert not other.rows
    with pytest.raises(ResultsError) as caught:
        open_results(setting(commit="fff"), tmp_path, first.path)
    assert str(caught.value) == (
        f"{first.path} holds results of another setting (measured H100 0.12.0 0.12.0 "
        "abc1234 False; here: measured H100 0.12.0 0.12.0 fff False). Name another "
        "file with --out, or go back to that setting."
    )


def test_files_that_are_no_results(tmp_path: Path):
    with pytest.raises(ResultsError, match="There is no file .* or leave --show out"):
        read_results(tmp_path / "none.json")
    path = tmp_path / "other.json"
    for text in ("{", "[]", '{"setting": {"form": 1}}'):
        path.write_text(text)
        with pytest.raises(ResultsError, match="holds no results of python -m"):
            read_results(path)


def test_a_file_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new" / "a.json"
    write(path, "first")
    assert path.read_text() == "first"

    def fails(old: str, new: Path) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(module.os, "replace", fails)
    with pytest.raises(OSError, match="full"):
        write(path, "second")
    assert path.read_text() == "first"
