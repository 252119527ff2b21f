"""A small persistent cache: one file per entry, safe under many processes.

The directory is `$AUTOTM_JAX_CACHE`, or `autotm-jax` under the user's cache
directory. Each entry is written to a temporary file and renamed into place, so a
process that dies loses at most its own entry. A directory that cannot be written is
said once and done without.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from ..errors import AutoTMWarning


def cache_directory() -> Path:
    """Where entries are kept."""
    chosen = os.environ.get("AUTOTM_JAX_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "autotm-jax"


def cache_key(*parts: object) -> str:
    """One key for several parts, in order."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def _path(kind: str, key: str) -> Path:
    return cache_directory() / kind / key[:2] / f"{key}.json"


def load(kind: str, key: str) -> Any | None:
    """The entry stored under a key; `None` if there is none or it is damaged."""
    try:
        return json.loads(_path(kind, key).read_text())
    except (OSError, ValueError):
        return None


def store(kind: str, key: str, entry: Any) -> None:
    """Stores a JSON-serialisable entry under a key."""
    path = _path(kind, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False
        ) as file:
            json.dump(entry, file)
        os.replace(file.name, path)
    except OSError as error:
        _say_once(str(cache_directory()), str(error))


@functools.cache
def _say_once(directory: str, reason: str) -> None:
    warnings.warn(
        f"The cache directory {directory} cannot be written ({reason}), so costs and "
        "plans are worked out again in the next process. Set AUTOTM_JAX_CACHE to a "
        "directory that can be written.",
        AutoTMWarning,
        stacklevel=3,
    )
