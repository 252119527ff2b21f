"""Writing what is drawn to files that the user names."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import ReportError


def write_file(path: Path, data: bytes) -> None:
    """Writes a file.

    **Arguments:**

    - `path`: where to.
    - `data`: its contents.

    **Raises:**

    - `ReportError`: if that cannot be done.
    """
    with _told(path):
        path.write_bytes(data)


def check_file(path: Path) -> None:
    """Before anything that takes long: could a file be written?

    What is there stays as it is. A link to nothing is not followed, and pipes and
    devices are not opened, as a reader would take that for all there is.

    **Arguments:**

    - `path`: where to.

    **Raises:**

    - `ReportError`: if it could not.
    """
    with _told(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            _check_present(path)
        else:
            path.unlink()


def _check_present(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        directory = path.resolve().parent
        directory.stat()
        if not os.access(directory, os.W_OK | os.X_OK):
            denied = errno.EACCES
            raise PermissionError(denied, os.strerror(denied)) from None
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # which says that it is one
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReportError(
            f"{path} could not be written ({error.strerror or error}). Name a file in "
            "a directory that exists and may be written to."
        ) from error
