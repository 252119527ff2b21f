"""The collectives of an executable: what its devices send one another in a step."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping


@dataclasses.dataclass(frozen=True)
class Collectives:
    """How often devices exchange something, and how much.

    - `count`: by kind (`"all-gather"`, say), how often in a step.
    - `nbytes`: by kind, bytes of the larger of operands and results on each device, of
        all of them.
    """

    count: Mapping[str, int]
    nbytes: Mapping[str, int]

    @property
    def total(self) -> int:
        """How often anything is exchanged in a step."""
        return sum(self.count.values())

    def __str__(self) -> str:
        each = (f"{n} {kind}" for kind, n in sorted(self.count.items()))
        return ", ".join(each) or "none"


_KINDS = (
    "all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|"
    "collective-permute|collective-broadcast"
)
# Of an asynchronous one the start counts, not the end.
_COLLECTIVE = re.compile(rf" = (.+?) ({_KINDS})(-start)?\((.*?)\)")
_NAMED = re.compile(r"^\s*(?:ROOT )?(%\S+) = (.+?) [a-z][a-z0-9-]*\(")
_NAME = re.compile(r"%[\w.-]+")
_COMPUTATION = re.compile(r"^(ENTRY )?(%\S+) .*\{$")
_CALLED = re.compile(r"(body|condition|calls|to_apply)=(%[\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{(.*?)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_BITS = re.compile(r"\d+")


def collectives(text: str) -> Collectives:
    """Counts the collectives of an executable.

    **Arguments:**

    - `text`: its scheduled HLO, as of `compiled.as_text()`.

    **Returns:**

    `Collectives`. What happens in a loop counts for each iteration, as far as XLA
    knows how many there are; what happens in a branch, as if it were taken.
    """
    times = _times(text)
    count: dict[str, int] = defaultdict(int)
    nbytes: dict[str, int] = defaultdict(int)
    for name, lines in _computations(text):
        shapes = {m[1]: m[2] for m in map(_NAMED.match, lines) if m}
        for line in lines:
            found = _COLLECTIVE.search(line)
            if found is None or not times.get(name):
                continue
            made, kind, _, given = found.groups()
            operands = (shapes.get(name, "") for name in _NAME.findall(given))
            size = max(sum(map(_nbytes, operands)), *map(_nbytes, _sides(made)))
            count[kind] += times[name]
            nbytes[kind] += times[name] * size
    return Collectives(dict(count), dict(nbytes))


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", []
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        if opened:
            name, lines = opened[2], []
        elif line.startswith("}"):
            yield name, lines
        else:
            lines.append(line)


def _times(text: str) -> dict[str, int]:
    """By computation, how often it runs in a step."""
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
    entry = ""
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        if opened:
            current = opened[2]
            entry = current if opened[1] else entry
            continue
        trips = _TRIPS.search(line)
        repeats = int(trips[1]) if trips else 1
        for role, callee in _CALLED.findall(line):
            calls[current].append((callee, repeats if role == "body" else 1))
        for branches in _BRANCHES.findall(line):
            calls[current] += [(b.strip(), 1) for b in branches.split(",")]
    times: dict[str, int] = defaultdict(int)

    def visit(name: str, factor: int) -> None:
        times[name] += factor
        for callee, repeats in calls.get(name, ()):
            visit(callee, factor * repeats)

    visit(entry, 1)
    return times


def _sides(made: str) -> list[str]:
    """What a collective takes and what it makes, of a result that names both."""
    if not made.startswith("("):
        return [made]
    sides, depth, begin = [], 0, 1
    for at, character in enumerate(made):
        depth += character in "([{"
        depth -= character in ")]}"
        if (character == "," and depth == 1) or (character == ")" and depth == 0):
            sides.append(made[begin:at])
            begin = at + 1
    return sides


def _nbytes(shapes: str) -> int:
    total = 0
    for dtype, dimensions in _SHAPE.findall(shapes):
        bits = _BITS.search(dtype)
        size = math.prod(int(d) for d in dimensions.split(",") if d)
        # `pred` takes a byte, and is the one type whose name has no number.
        total += (size * (int(bits[0]) if bits else 8) + 7) // 8
    return total
