"""Writing what is drawn to files that the user names."""

from __future__ import annotations

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
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ReportError(
            f"{path} could not be written ({error.strerror or error}). Name a file in "
            "a directory that exists and may be written to."
        ) from error
