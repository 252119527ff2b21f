"""What the command prints and writes, and how it says that it is busy."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..config import hides_progress
from ..errors import AutoTMWarning
from .named import UsageError


# Nothing is said of what is over by then; from then on, it is said how long it takes.
_A_SECOND, _TICK = 1.0, 0.5


# Options that name a file to write.
_FILES = ("json", "save", "plot", "trace", "output")


def check_files(options: argparse.Namespace) -> None:
    """Before anything that takes long: can all files be written that options name?

    **Raises:**

    - `UsageError`: if one of them cannot.
    """
    named = [getattr(options, name, None) for name in _FILES]
    for where in named:
        if where in (None, "-"):
            continue
        path = Path(where)
        with _written(path):
            was_there = path.exists()
            path.open("ab").close()
            if not was_there:
                path.unlink()


def write_json(found: Any, where: str) -> None:
    """Writes JSON to a file, or to standard output for `"-"`.

    **Raises:**

    - `UsageError`: if the file cannot be written.
    """
    text = json.dumps(found, indent=1) + "\n"
    if where == "-":
        sys.stdout.write(text)
        return
    with _written(Path(where)):
        Path(where).write_text(text)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} could not be written ({error.strerror}). Name a file in a "
            "directory that exists and may be written to."
        ) from error


def say(text: str, json_to: str | None) -> None:
    """Prints for people, unless JSON is printed in its place."""
    if json_to != "-":
        print(text)


@contextlib.contextmanager
def busy(what: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """A line on standard error that counts seconds, and steps if there are some.

    It comes after a second, and only if standard error is a terminal. What it yields
    is called with the name of each step before that begins.
    """
    counted = "{n_fmt}/{total_fmt} " if total else ""
    form = "{desc}: " + counted + "{elapsed}"
    with tqdm(
        total=total,
        bar_format=form,
        leave=False,
        disable=hides_progress(),
        delay=_A_SECOND,
    ) as bar:
        bar.set_description_str(what, refresh=False)
        over, begun = threading.Event(), []

        def tick() -> None:
            pause = _A_SECOND
            while not over.wait(pause):
                bar.refresh()
                pause = _TICK

        def begin(name: str) -> None:
            bar.set_description_str(name, refresh=False)
            bar.update(len(begun) - bar.n)
            begun.append(name)

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield begin
        finally:
            over.set()
            ticking.join()


def warned(
    message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> None:
    """As `warnings.showwarning`, but a sentence for what this package says."""
    if issubclass(category, AutoTMWarning):
        print(f"autotm: warning: {message}", file=sys.stderr)
    else:
        _usual(message, category, *where, **more)


_usual = warnings.showwarning
