"""What XLA assigns to a step that is not to run: its memory, without its code.

To make code of its kernels is most of XLA's work, and no buffer depends on it. For a
GPU that is not here nobody needs that code, so XLA is stopped before it: the schedule
and the buffers are among what it dumps until then.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import compat
from .lifetimes import Lifetimes, read_lifetimes
from .options import compile_not_to_run


_ALLOCATION = re.compile(
    r"^allocation \d+: size (\d+),(?: color (\d+),)?(?: page \d+,)? (.*):$",
    re.MULTILINE,
)
_HOST = "5"  # the color of pinned host memory

_SCHEDULED = "_after_optimizations.txt"
_BUFFERS = "_after_optimizations-buffer-assignment.txt"
_RANGES = "_after_optimizations-live-range.txt"

# Dumps in the form of `Compiled.as_text`.
_DUMPING = {"xla_syntax_sugar_async_ops": True}
if compat.DUMPS_SHORT_TUPLES:
    _DUMPING["xla_dump_compact_gte"] = False

# Once memory is assigned, and before it makes any code, XLA reads the kernels that it
# has made before, if it is told that there are some. What is no such file ends it.
_STOPPING = "xla_gpu_kernel_cache_file"
_NO_KERNELS = "There are no kernels here: this is where XLA is to stop.\n"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes as `jax.stages.Compiled.memory_analysis` names them.

    Arguments that results take the place of are arguments only, so that there are no
    aliases.
    """

    argument_size_in_bytes: int = 0
    output_size_in_bytes: int = 0
    temp_size_in_bytes: int = 0
    alias_size_in_bytes: int = 0
    host_argument_size_in_bytes: int = 0
    host_output_size_in_bytes: int = 0
    host_temp_size_in_bytes: int = 0
    host_alias_size_in_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Uncoded:
    """What can be said of an executable for which XLA made no code.

    It says so as a `jax.stages.Compiled` does.

    - `text`: the scheduled HLO.
    - `sizes`: bytes of memory.
    """

    text: str = dataclasses.field(repr=False)
    sizes: Sizes

    def as_text(self) -> str:
        """The scheduled HLO."""
        return self.text

    def memory_analysis(self) -> Sizes:
        """Bytes of memory."""
        return self.sizes


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What XLA assigned.

    - `executable`: a `jax.stages.Compiled`, or an `Uncoded`.
    - `dumped`: XLA's dumps of its buffer assignment and of live ranges; `None` if it
        wrote none (an executable from JAX's own cache, no place to write to).
    """

    executable: Any
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

    The `Assignment`: the same bytes and schedule, whether code was made or not.
    """
    given = dict(options or {})
    try:
        place = tempfile.TemporaryDirectory(prefix="autotm-jax-")
    except OSError:
        return Assignment(compile_not_to_run(lowered, given))
    with place as directory:
        given["xla_dump_to"] = directory
        if not is_present:
            kernels = Path(directory) / "kernels"
            _compile_until_assigned(lowered, {**given, **_DUMPING}, kernels)
            text, dumped = _dumped_within(Path(directory))
            if dumped is not None:
                return Assignment(Uncoded(text, _sizes(dumped[0])), dumped)
        compiled = compile_not_to_run(lowered, given)
        return Assignment(compiled, _dumped_within(Path(directory))[1])


def _compile_until_assigned(
    lowered: Any, options: Mapping[str, Any], kernels: Path
) -> None:
    kernels.write_text(_NO_KERNELS)
    try:
        compile_not_to_run(lowered, {**options, _STOPPING: str(kernels)})
    except Exception as error:
        # It names the file, or an option that another version does not have.
        expected = str(kernels), _STOPPING, *_DUMPING
        if not any(name in str(error) for name in expected):
            raise


def _dumped_within(directory: Path) -> tuple[str, tuple[str, str] | None]:
    """The scheduled HLO, the buffer assignment and the live ranges."""
    # The autotuner compiles small modules of its own on the way.
    assigned = sorted(
        directory.glob(f"*{_BUFFERS}"), key=lambda path: path.stat().st_size
    )
    if not assigned:
        return "", None
    stem = assigned[-1].name.removesuffix(_BUFFERS)
    paths = [directory / f"{stem}{end}" for end in (_SCHEDULED, _BUFFERS, _RANGES)]
    if not all(path.exists() for path in paths):
        return "", None
    text, buffers, ranges = (path.read_text() for path in paths)
    return text, (buffers, ranges)


def _sizes(buffers: str) -> Sizes:
    found: Counter[str] = Counter()
    for nbytes, color, kind in _ALLOCATION.findall(buffers):
        if kind.startswith("parameter"):
            name = "argument"
        elif "maybe-live-out" in kind:
            name = "output"
        elif kind.startswith("preallocated-temp"):
            name = "temp"
        else:
            continue  # in registers of a kernel, or a constant of the executable
        place = "host_" if color == _HOST else ""
        found[f"{place}{name}_size_in_bytes"] += int(nbytes)
    return Sizes(**found)
