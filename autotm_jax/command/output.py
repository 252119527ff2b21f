"""What the command prints and writes, and how it says that it is busy."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..config import hides_progress
from ..errors import AutoTMWarning
from ..report.files import check_file, write_file
from ..report.plots import check_picture


# Nothing is said of what is over by then; from then on, it is said how long it takes.
_A_SECOND, _TICK = 1.0, 0.5


# Options that name a file to write.
_FILES = ("json", "save", "plot", "trace", "output")


def check_files(options: argparse.Namespace) -> None:
    """Before anything that takes long: can all files be written that options name?

    **Raises:**

    - `ReportError`: if one of them cannot, or a picture cannot be drawn.
    """
    for name in _FILES:
        where = getattr(options, name, None)
        if where is not None and (name, where) != ("json", "-"):
            check_file(Path(where))
    picture = getattr(options, "plot", None)
    if picture is not None:
        check_picture(Path(picture))


def write_json(found: Any, where: str) -> None:
    """Writes JSON to a file, or to standard output for `"-"`.

    **Raises:**

    - `ReportError`: if the file cannot be written.
    """
    text = json.dumps(found, indent=1) + "\n"
    if where == "-":
        sys.stdout.write(text)
        return
    write_file(Path(where), text.encode())


def say(text: str, json_to: str | None) -> None:
    """Prints for people, unless JSON is printed in its place."""
    if json_to != "-":
        print(text)


class _Line(tqdm):
    """A bar that is not shown before its delay is over, whatever asks for it.

    A warning does, which is written above the bars. `tqdm` itself only knows of what
    `update` shows, and would leave the rest on the screen.
    """

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        now = time.time()
        if now < self.start_t + self.delay:
            return False
        self.last_print_t = now
        return bool(super().display(msg, pos))


@contextlib.contextmanager
def busy(what: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """A line on standard error that counts seconds, and steps if there are some.

    It comes after a second, and only if standard error is a terminal and
    `config.progress` does not hide it. What it yields is called with the name of each
    step before that begins.
    """
    counted = "{n_fmt}/{total_fmt} " if total else ""
    form = "{desc}: " + counted + "{elapsed}"
    with _Line(
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
    """As `warnings.showwarning`, but a sentence for what this package says.

    It has lines of its own, above those of the bars that are shown.
    """
    with tqdm.external_write_mode(file=sys.stderr):
        if issubclass(category, AutoTMWarning):
            print(f"autotm: warning: {message}", file=sys.stderr)
        else:
            _usual(message, category, *where, **more)


_usual = warnings.showwarning
