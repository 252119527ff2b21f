"""When an executable's temporary buffers are there, as XLA assigned them.

No public interface says so, but XLA writes it down when it is asked to dump what it
compiles: the order of its kernels, and for each value the offset in the temporary
allocation and the kernels between which it lives.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .options import compile_not_to_run


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A part of the temporary allocation while values live in it.

    - `offset`, `nbytes`: where it is.
    - `first`, `end`: from kernel `first` until before kernel `end`.
    - `values`: XLA's names of the values in it, in order: of more than one, each
        overwrites the one before in place.
    - `handed`: the kernel at which the second does so with the first, or `end`.
    """

    offset: int
    nbytes: int
    first: int
    end: int
    values: tuple[str, ...]
    handed: int


@dataclasses.dataclass(frozen=True)
class Lifetimes:
    """What happens in the device memory of an executable.

    - `kernels`: the names of its instructions, in the order in which they run.
    - `buffers`: of its temporary allocation.
    - `ticks`: of each kernel: how many values end there or begin with the next. XLA
        packs what lives longest first, and measures that by these.
    """

    kernels: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    ticks: tuple[int, ...]


def compile_watched(
    lowered: Any, options: Mapping[str, Any]
) -> tuple[Any, Lifetimes | None]:
    """Compiles what is not to run, and watches where XLA puts what.

    **Arguments:**

    - `lowered`: a `jax.stages.Lowered`.
    - `options`: XLA's, as for `compile`.

    **Returns:**

    The `jax.stages.Compiled`, and its `Lifetimes`; `None` if XLA did not write them
    down as it is known to (an executable from JAX's own cache, another version), or
    there is no place to write to.
    """
    try:
        place = tempfile.TemporaryDirectory(prefix="autotm-jax-")
    except OSError:
        return compile_not_to_run(lowered, options), None
    with place as directory:
        dump = {"xla_dump_to": directory}
        compiled = compile_not_to_run(lowered, {**options, **dump})
        assigned = sorted(
            Path(directory).glob("*_after_optimizations-buffer-assignment.txt"),
            key=lambda path: path.stat().st_size,
        )
        if not assigned:
            return compiled, None
        # The autotuner compiles small modules of its own on the way.
        path = assigned[-1]
        name = path.name.replace("-buffer-assignment.txt", "-live-range.txt")
        if not path.with_name(name).exists():
            return compiled, None
        return compiled, read_lifetimes(
            path.read_text(), path.with_name(name).read_text()
        )


_TEMPORARY = re.compile(r"allocation \d+: size \d+,(?: page \d+,)? preallocated-temp:")
# Tables of what is in a tuple are no buffers that are packed with the rest.
_VALUE = re.compile(
    r"value: <\d+ (\S+)(?: \(phi\))? @\d+> \(size=([1-9]\d*),offset=(\d+)\): (?!\()"
)
_KERNEL = re.compile(r"^\s+(\d+):(\S+)$", re.MULTILINE)
_RANGE = re.compile(r"^\s+(\S+?)(\{[\d,]*\}):(\d+)-(\d+)$", re.MULTILINE)


def read_lifetimes(assignment: str, ranges: str) -> Lifetimes | None:
    """Reads XLA's dumps of a buffer assignment and of live ranges.

    **Arguments:**

    - `assignment`, `ranges`: the texts of the two files.

    **Returns:**

    `Lifetimes`, or `None` if they are not written as they are known to be.
    """
    kernels, _, rest = ranges.partition("BufferLiveRange:")
    order = [name for _, name in _KERNEL.findall(kernels)]
    living: dict[str, tuple[int, int]] = {}
    for name, index, first, last in _RANGE.findall(rest):
        living[name if index == "{}" else name + index] = int(first), int(last) + 1
    if not order or not living:
        return None
    places: dict[tuple[int, int], list[tuple[int, int, str]]] = defaultdict(list)
    ticks = [0] * max(end for _, end in living.values())
    for block in re.split(r"\n(?=allocation )", assignment):
        if not _TEMPORARY.match(block):
            continue
        for name, nbytes, offset in _VALUE.findall(block):
            if name in living:
                first, end = living[name]
                places[int(offset), int(nbytes)].append((first, end, name))
                ticks[max(0, first - 1)] += 1
                ticks[end - 1] += 1
    buffers = [
        buffer for place, values in places.items() for buffer in _joined(*place, values)
    ]
    return Lifetimes(tuple(order), tuple(buffers), tuple(ticks))


def _joined(
    offset: int, nbytes: int, values: list[tuple[int, int, str]]
) -> list[Buffer]:
    # Two values that are in one place at the same time are in it one after the other:
    # a kernel overwrites its operand.
    out: list[Buffer] = []
    for first, end, name in sorted(values):
        if out and first < out[-1].end:
            last = out[-1]
            handed = last.handed if len(last.values) > 1 else first
            end, names = max(end, last.end), (*last.values, name)
            out[-1] = Buffer(offset, nbytes, last.first, end, names, handed)
        else:
            out.append(Buffer(offset, nbytes, first, end, (name,), end))
    return out
