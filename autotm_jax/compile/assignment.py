"""What XLA assigns to a step that is not to run: its memory, without its code.

To make code of its kernels is half of XLA's work or more, and no buffer depends on it.
For a GPU that is not here nobody needs that code, so XLA is stopped before it, where
it is known how: the schedule and the buffers are among what it dumps until then.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import compat
from .lifetimes import Lifetimes, read_lifetimes
from .memory import device_bytes, temp_bytes
from .options import compile_not_to_run


# Memory of the host has a color, and newer versions say on which page one is.
_ALLOCATION = re.compile(
    r"^allocation \d+: size (\d+),(?: page \d+,)? (?!color )(.*):$", re.MULTILINE
)
_TEMPORARY = "preallocated-temp"
# What kernels keep in registers, and what is in the executable already.
_NO_MEMORY = ("thread-local", "constant")

_SCHEDULED = "_after_optimizations.txt"
_BUFFERS = "_after_optimizations-buffer-assignment.txt"
_RANGES = "_after_optimizations-live-range.txt"


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What XLA assigned.

    - `text`: the scheduled HLO.
    - `device_bytes`: arguments, results and temporaries.
    - `temp_bytes`: of those, the temporaries.
    - `dumped`: XLA's dumps of its buffer assignment and of live ranges; `None` if it
        wrote none (an executable from JAX's own cache, no place to write to).
    """

    text: str
    device_bytes: int
    temp_bytes: int
    dumped: tuple[str, str] | None = dataclasses.field(default=None, repr=False)

    @functools.cached_property
    def lifetimes(self) -> Lifetimes | None:
        """When the temporaries are there, if XLA says it as it is known to."""
        return None if self.dumped is None else read_lifetimes(*self.dumped)


def assign(
    lowered: Any, options: Mapping[str, Any] | None = None, is_present: bool = True
) -> Assignment:
    """Has XLA assign memory on a GPU to a step that is not to run.

    **Arguments:**

    - `lowered`: a `jax.stages.Lowered`.
    - `options`: XLA's, besides those that it has been given by its `jax.jit`.
    - `is_present`: whether the GPU is here. XLA tries out kernels there, which takes
        their code.

    **Returns:**

    The `Assignment`: the same, whether code was made or not.
    """
    given = dict(options or {})
    try:
        place = tempfile.TemporaryDirectory(prefix="autotm-jax-")
    except OSError:
        return _of_executable(compile_not_to_run(lowered, given), None)
    with place as directory:
        given["xla_dump_to"] = directory
        if not is_present and compat.STOP_BEFORE_CODE is not None:
            _compile_until_assigned(lowered, given, *compat.STOP_BEFORE_CODE)
            dump = _Dump.within(Path(directory))
            if dump is not None:
                return dump.assignment()
        compiled = compile_not_to_run(lowered, given)
        return _of_executable(compiled, _Dump.within(Path(directory)))


def _compile_until_assigned(
    lowered: Any, options: Mapping[str, Any], stopping: Mapping[str, Any], stopped: str
) -> None:
    try:
        compile_not_to_run(lowered, {**options, **stopping})
    except Exception as error:
        if stopped not in str(error):
            raise


@dataclasses.dataclass(frozen=True)
class _Dump:
    text: str
    buffers: str
    ranges: str

    @staticmethod
    def within(directory: Path) -> _Dump | None:
        # The autotuner compiles small modules of its own on the way.
        assigned = sorted(
            directory.glob(f"*{_BUFFERS}"), key=lambda path: path.stat().st_size
        )
        if not assigned:
            return None
        stem = assigned[-1].name.removesuffix(_BUFFERS)
        paths = [directory / f"{stem}{end}" for end in (_SCHEDULED, _BUFFERS, _RANGES)]
        if not all(path.exists() for path in paths):
            return None
        return _Dump(*(path.read_text() for path in paths))

    def assignment(self) -> Assignment:
        found = [(int(n), kind) for n, kind in _ALLOCATION.findall(self.buffers)]
        taken = [(n, kind) for n, kind in found if not kind.startswith(_NO_MEMORY)]
        temporary = sum(n for n, kind in taken if kind.startswith(_TEMPORARY))
        total = sum(n for n, _ in taken)
        return Assignment(self.text, total, temporary, (self.buffers, self.ranges))


def _of_executable(compiled: Any, dump: _Dump | None) -> Assignment:
    dumped = None if dump is None else (dump.buffers, dump.ranges)
    figures = device_bytes(compiled), temp_bytes(compiled)
    return Assignment(compiled.as_text() or "", *figures, dumped)
