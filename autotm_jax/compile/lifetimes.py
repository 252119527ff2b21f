"""When an executable's temporary buffers are there, as XLA assigned them.

No public interface says so, but XLA writes it down when it is asked to dump what it
compiles: the order of its kernels, and for each value the offset in the temporary
allocation and the kernels between which it lives.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A part of the temporary allocation while values live in it.

    - `offset`, `nbytes`: where it is.
    - `first`, `end`: from kernel `first` until before kernel `end`.
    - `values`: XLA's names of the values in it, in order: of more than one, each
        overwrites the one before in place.
    - `born`, `dead`: the ticks at which it is taken and given back.
    - `handed`: the tick at which the second value takes over, or `dead`.
    """

    offset: int
    nbytes: int
    first: int
    end: int
    values: tuple[str, ...]
    born: int
    handed: int
    dead: int


@dataclasses.dataclass(frozen=True)
class Lifetimes:
    """What happens in the device memory of an executable.

    XLA packs what lives longest first, and measures that in *ticks*: every value that
    begins or ends is one. A kernel's results begin before its operands end, but for an
    operand that a result takes the place of, which ends right before that begins. Of
    results those begin first that end first, and may choose a place first; of operands
    those end first that began first. (XLA: `HeapSimulator::RunComputation`.)

    - `kernels`: the names of its instructions, in the order in which they run.
    - `buffers`: of its temporary allocation.
    - `ticks`: how many have passed before each kernel, and after the last one.
    """

    kernels: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    ticks: tuple[int, ...]


_TEMPORARY = re.compile(r"allocation \d+: size \d+,(?: page \d+,)? preallocated-temp:")
# Tables of what is in a tuple are no buffers that are packed with the rest.
_VALUE = re.compile(
    r"value: <(\d+) (\S+)( \(phi\))? @\d+> \(size=([1-9]\d*),offset=(\d+)\): (?!\()"
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
    sequence, _, rest = ranges.partition("BufferLiveRange:")
    kernels = tuple(name for _, name in _KERNEL.findall(sequence))
    living: dict[str, tuple[int, int]] = {}
    for name, index, first, last in _RANGE.findall(rest):
        living[name if index == "{}" else name + index] = int(first), int(last) + 1
    if not kernels or not living:
        return None
    places: dict[tuple[int, int], list[str]] = defaultdict(list)
    number: dict[str, int] = {}
    phis: set[str] = set()
    for block in re.split(r"\n(?=allocation )", assignment):
        if not _TEMPORARY.match(block):
            continue
        for known, name, phi, nbytes, offset in _VALUE.findall(block):
            if name in living:
                places[int(offset), int(nbytes)].append(name)
                number[name] = int(known)
                if phi:
                    phis.add(name)
    order = sorted(number, key=lambda name: (*living[name], number[name]))
    rank = {name: i for i, name in enumerate(order)}
    taken: dict[str, str] = {}
    for names in places.values():
        names.sort(key=rank.__getitem__)
        for before, after in itertools.pairwise(names):
            # What a loop hands on is in one place from the start.
            is_handed_on = before in phis or after in phis
            if living[after][0] == living[before][1] - 1 and not is_handed_on:
                taken[after] = before
    lives, ticks = _ticking(living, order, taken)
    buffers = [
        buffer
        for place, names in places.items()
        for buffer in _joined(*place, [(*living[n], n) for n in names], lives)
    ]
    return Lifetimes(kernels, tuple(buffers), tuple(ticks))


def _ticking(
    living: Mapping[str, tuple[int, int]],
    order: Sequence[str],
    taken: Mapping[str, str],
) -> tuple[dict[str, tuple[int, int]], list[int]]:
    """The ticks at which values begin and end, and those before each kernel.

    Values that begin or end with the same kernel do so in `order`. `taken` says whose
    place a value takes.
    """
    begin: dict[int, list[str]] = defaultdict(list)
    finish: dict[int, list[str]] = defaultdict(list)
    gone_before = set(taken.values())
    for name in order:
        first, end = living[name]
        begin[first].append(name)
        if name not in gone_before:
            finish[end - 1].append(name)
    born, dead = dict[str, int](), dict[str, int]()
    ticks, now = [0], itertools.count()
    for kernel in range(max(end for _, end in living.values())):
        for name in begin[kernel]:
            if name in taken:
                dead[taken[name]] = next(now)
            born[name] = next(now)
        for name in finish[kernel]:
            dead[name] = next(now)
        ticks.append(len(born) + len(dead))
    return {name: (born[name], dead[name]) for name in order}, ticks


def _joined(
    offset: int,
    nbytes: int,
    values: list[tuple[int, int, str]],
    lives: Mapping[str, tuple[int, int]],
) -> list[Buffer]:
    # Two values that are in one place at the same time are in it one after the other:
    # a kernel overwrites its operand.
    out: list[Buffer] = []
    for first, end, name in sorted(values):
        born, dead = lives[name]
        if out and first < out[-1].end:
            last = out[-1]
            out[-1] = dataclasses.replace(
                last,
                end=max(end, last.end),
                values=(*last.values, name),
                dead=max(dead, last.dead),
            )
        else:
            out.append(Buffer(offset, nbytes, first, end, (name,), born, dead, dead))
    return out
