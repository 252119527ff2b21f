"""What was found, in a file that is whole after every row."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from .row import Row, of_json
from .setting import Setting
from .tasks import Task
from .ways import PLAIN, REMAT


class ResultsError(RuntimeError):
    """A file of results that cannot be gone on with."""


class Results:
    """What was found so far.

    **Arguments:**

    - `path`: the file.
    - `setting`: what all rows have in common.
    - `found`: what the file holds, if it is gone on with.
    """

    def __init__(self, path: Path, setting: Setting, found: dict[str, Any]):
        self.path, self.setting = path, setting
        self.date = found.get("date") or datetime.date.today().isoformat()
        self.command: str = found.get("command", "")
        self.machine: dict[str, Any] | None = found.get("machine")
        self.products: list[dict[str, Any]] = found.get("products", [])
        self.copies: list[dict[str, Any]] = found.get("copies", [])
        self.batches: dict[str, int] = found.get("batches", {})
        self.rows = {row.key: row for row in map(of_json, found.get("rows", []))}
        self.largest: list[dict[str, Any]] = found.get("largest", [])
        self.took: dict[str, float] = found.get("took", {})
        self.failed: dict[str, str] = found.get("failed", {})
        self.left: list[str] = found.get("left", [])

    def take(self, message: dict[str, Any]) -> None:
        """Merges what a task has said."""
        for name, said in message.items():
            if name == "row":
                self.take_row(of_json(said))
            elif name == "batch":
                self.batches.update(said)
            elif name == "peak":
                case, batch, way = said["key"]
                known = self.rows.get((case, batch, way)) or Row(case, batch, way)
                found = dataclasses.replace(known, peak_bytes_in_use=said["bytes"])
                self.rows[found.key] = found
            elif name == "largest":
                self.largest.append(said)
            else:
                setattr(self, name, said)

    def take_row(self, row: Row) -> None:
        """Merges a row; a peak that is known of it stays."""
        known = self.rows.get(row.key)
        if known is not None and row.peak_bytes_in_use is None:
            peak = known.peak_bytes_in_use
            row = dataclasses.replace(row, peak_bytes_in_use=peak)
        self.rows[row.key] = row

    def largest_batch(self, case: str, way: str) -> int | None:
        """The largest batch of a workload run in a way, if it is known."""
        found = [e for e in self.largest if (e["case"], e["way"]) == (case, way)]
        return found[-1]["batch"] if found else None

    def batch_of(self, task: Task) -> int | None:
        """The batch of a task; `None` if it is not known yet."""
        if task.factor == 1:
            return self.batches.get(task.case)
        largest = self.largest_batch(task.case, PLAIN.name)
        return None if largest is None else task.factor * largest

    def missing(self, task: Task) -> tuple[str, ...] | None:
        """The ways of a task of which nothing is known; `None` if all of it is done."""
        if str(task) in self.failed:
            return None
        if task.kind == "machine":
            is_known = self.machine is not None
            has_run = self.products or self.setting.form == "compiled"
            return None if is_known and has_run else ()
        if task.kind == "largest":
            (way,) = task.ways
            return None if self.largest_batch(task.case, way) else (way,)
        batch = self.batch_of(task)
        rows = {w: self.rows.get((task.case, batch or 0, w)) for w in task.ways}
        if task.kind == "peak":
            (way,) = task.ways
            row = rows[way]
            return None if row and row.peak_bytes_in_use is not None else (way,)
        return tuple(w for w in task.ways if not self.is_done(rows[w])) or None

    def is_done(self, row: Row | None) -> bool:
        """Whether a row has what its form has, or says why not."""
        if row is None:
            return False
        if row.error:
            return True
        if self.setting.form == "compiled":
            return row.device_bytes is not None
        return bool(row.samples)

    def forget_failures(self) -> None:
        """Makes what failed be done again."""
        self.failed.clear()
        self.rows = {key: row for key, row in self.rows.items() if not row.error}

    def relative_to(self, task: Task) -> dict[str, int | None]:
        """What budgets are relative to at the batch of a task, as far as is known."""
        batch = self.batch_of(task) or 0
        rows = [self.rows.get((task.case, batch, w.name)) for w in (PLAIN, REMAT)]
        found = [None if row is None else row.device_bytes for row in rows]
        return {"plain": found[0], "full": found[1]}

    def as_json(self) -> dict[str, Any]:
        """All of it as what `json` can write."""
        return {
            "date": self.date,
            "command": self.command,
            "setting": dataclasses.asdict(self.setting),
            "machine": self.machine,
            "products": self.products,
            "copies": self.copies,
            "batches": self.batches,
            "rows": [dataclasses.asdict(row) for row in self.rows.values()],
            "largest": self.largest,
            "took": self.took,
            "failed": self.failed,
            "left": self.left,
        }

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        write(self.path, json.dumps(self.as_json(), indent=1) + "\n")


def write(path: Path, text: str) -> None:
    """Writes a file under another name, and renames it: it is never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.chmod(name, 0o644)
    os.replace(name, path)


def open_results(setting: Setting, folder: Path, path: Path | None) -> Results:
    """The results to go on with, or new ones.

    **Arguments:**

    - `setting`: that of this run.
    - `folder`: where files are that are named after card and date. Of another setting
        on the same day, the next has a number.
    - `path`: the file, if it was named.

    **Raises:**

    - `ResultsError`: if the named file is of another setting, or of none.
    """
    if path is not None:
        found = _read(path)
        if found and found["setting"] != dataclasses.asdict(setting):
            theirs = " ".join(str(x) for x in found["setting"].values())
            ours = " ".join(str(x) for x in dataclasses.asdict(setting).values())
            raise ResultsError(
                f"{path} holds results of another setting ({theirs}; here: {ours}). "
                "Name another file with --out, or go back to that setting."
            )
        return Results(path, setting, found)
    today = datetime.date.today().isoformat()
    number = 1
    while True:
        last = "" if number == 1 else f"-{number}"
        path = folder / f"{setting.stem}-{today}{last}.json"
        found = _read(path)
        if not found or found["setting"] == dataclasses.asdict(setting):
            return Results(path, setting, found)
        number += 1


def read_results(path: Path) -> Results:
    """Results that were written before.

    **Raises:**

    - `ResultsError`: if there are none in the file.
    """
    found = _read(path)
    if not found:
        raise ResultsError(
            f"There is no file {path}. Name one that python -m benchmarks.gpu has "
            "written, or leave --show out to make one."
        )
    return Results(path, Setting(**found["setting"]), found)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        Setting(**found["setting"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ResultsError(
            f"{path} holds no results of python -m benchmarks.gpu ({error!r}). Name "
            "another file with --out, or remove this one."
        ) from error
    return found
