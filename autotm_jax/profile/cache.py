"""A small persistent cache: one file per entry, safe under many processes.

The directory is `$AUTOTM_JAX_CACHE`, or `autotm-jax` under the user's cache
directory. Each entry is written to a temporary file and renamed into place, so a
process that dies loses at most its own entry, and readers never wait. A directory that
cannot be written and a file that cannot be read are said once and done without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import config
from ..errors import warn


try:
    import fcntl
except ImportError:  # not a POSIX system: processes may disturb each other
    fcntl = None


_KEY = re.compile("[0-9a-f]{64}")

# A temporary file older than this belongs to a process that died.
_ABANDONED_SECONDS = 3600.0


def cache_directory() -> Path:
    """Where entries are kept."""
    return config.cache_directory


def cache_key(*parts: object) -> str:
    """One key for several parts, in order."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def _path(kind: str, key: str) -> Path:
    return cache_directory() / kind / key[:2] / f"{key}.json"


def load(kind: str, key: str) -> Any | None:
    """The entry stored under a key; `None` if there is none or it is damaged."""
    path = _path(kind, key)
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        _say_unreadable(str(cache_directory()), path.name)
        return None


def store(kind: str, key: str, entry: Any) -> None:
    """Stores a JSON-serialisable entry under a key."""
    path = _path(kind, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False
        ) as file:
            try:
                json.dump(entry, file)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        _say_unwritable(str(cache_directory()), str(error))


@functools.cache
def _say_unwritable(directory: str, reason: str) -> None:
    warn(
        f"The cache directory {directory} cannot be written ({reason}), so costs and "
        "plans are worked out again in the next process. Set AUTOTM_JAX_CACHE to a "
        "directory that can be written."
    )


_said_unreadable: set[str] = set()


def _say_unreadable(directory: str, name: str) -> None:
    if directory in _said_unreadable:
        return
    _said_unreadable.add(directory)
    warn(
        f"The cache directory {directory} holds an entry that cannot be read ({name}). "
        "It is worked out again, as is any other such entry; `autotm cache clear` "
        "removes them all."
    )


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Waits until no other process is inside, so that none disturbs a measurement.

    **Arguments:**

    - `name`: what is measured; another name is another lock.

    The lock is the operating system's: it goes with the process that holds it, however
    that ends. Where there is no lock to be had, nobody waits.
    """
    if fcntl is None:
        yield
        return
    try:
        directory = cache_directory() / "locks"
        directory.mkdir(parents=True, exist_ok=True)
        file = open(directory / cache_key(name), "a")  # noqa: SIM115 - closed below
    except OSError:
        yield
        return
    with file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclasses.dataclass(frozen=True)
class CacheInfo:
    """What the cache holds: entries and bytes by kind."""

    directory: Path
    entries: dict[str, int]
    nbytes: dict[str, int]

    def __str__(self) -> str:
        rows = [f"{self.directory}: {sum(self.entries.values())} entries"]
        for kind, count in sorted(self.entries.items()):
            rows.append(
                f"  {kind:<12} {count:>8}  {self.nbytes[kind] / 1e3:>10,.1f} kB"
            )
        return "\n".join(rows)


def info() -> CacheInfo:
    """What the cache holds."""
    entries: dict[str, int] = {}
    nbytes: dict[str, int] = {}
    for path in _entries():
        kind = path.parent.parent.name
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            entries[kind] = entries.get(kind, 0) + 1
            nbytes[kind] = nbytes.get(kind, 0) + size
    return CacheInfo(cache_directory(), entries, nbytes)


def clear() -> int:
    """Removes every entry, and what processes that died have left.

    **Returns:**

    How many entries were removed.
    """
    removed = 0
    for path in _entries():
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    for path in cache_directory().glob("*/??/tmp*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
    return removed


def _entries() -> Iterator[Path]:
    # The directory may hold what is not the cache's.
    files = cache_directory().glob("*/??/*.json")
    return (path for path in files if _KEY.fullmatch(path.stem))
