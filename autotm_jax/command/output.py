"""What the command prints and writes, and how it says that it is busy."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .named import UsageError


def write_json(found: Any, where: str) -> None:
    """Writes JSON to a file, or to standard output for `"-"`.

    **Raises:**

    - `UsageError`: if the file cannot be written.
    """
    text = json.dumps(found, indent=1) + "\n"
    if where == "-":
        sys.stdout.write(text)
        return
    try:
        Path(where).write_text(text)
    except OSError as error:
        raise UsageError(
            f"{where} could not be written ({error.strerror}). Name a file in a "
            "directory that exists and may be written to."
        ) from error


def say(text: str, json_to: str | None) -> None:
    """Prints for people, unless JSON is printed in its place."""
    if json_to != "-":
        print(text)


@contextlib.contextmanager
def busy(what: str, total: int | None = None) -> Iterator[tqdm[Any]]:
    """A line on standard error that counts seconds, and steps if there are some.

    Nothing is shown unless standard error is a terminal.
    """
    counted = "{n_fmt}/{total_fmt} " if total else ""
    form = "{desc} " + counted + "{elapsed}"
    with tqdm(
        total=total, desc=what, bar_format=form, leave=False, disable=None
    ) as bar:
        over = threading.Event()

        def tick() -> None:
            while not over.wait(0.5):
                bar.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield bar
        finally:
            over.set()
            ticking.join()
