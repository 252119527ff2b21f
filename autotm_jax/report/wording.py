"""How seconds, bytes and series of numbers are said in a report."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..budget import format_bytes


# Ranges that are named before they are summed up.
_RANGES = 3

# Seconds below which there is nothing to say.
_NOTHING = 1e-10


def said(seconds: float, sign: bool = False) -> str:
    """Seconds for people: `"86.10 ms"`, `"12.4 µs"`.

    **Arguments:**

    - `seconds`: how many.
    - `sign`: whether a plus is written, too.

    **Returns:**

    Text.
    """
    mark = "+" if sign else ""
    if abs(seconds) < _NOTHING:
        return "0 ms"
    if abs(seconds) < 9.995e-5:
        return f"{seconds * 1e6:{mark},.1f} µs"
    return f"{seconds * 1e3:{mark},.2f} ms"


def span_of_times(seconds: Iterable[float], sign: bool = False) -> str:
    """The least and the most of some seconds: `"+0.60 to +1.04 ms"`."""
    known = list(seconds)
    return _between(said(min(known), sign), said(max(known), sign))


def span_of_sizes(nbytes: Iterable[int]) -> str:
    """The least and the most of some bytes: `"12.0 to 68.3 MiB"`."""
    known = list(nbytes)
    return _between(format_bytes(min(known)), format_bytes(max(known)))


def _between(low: str, high: str) -> str:
    # A unit that both share is said once.
    if low == high:
        return low
    number, unit = low.split()
    return f"{number if unit == high.split()[1] else low} to {high}"


def near(text: str) -> str:
    """A text in which files under the current directory are named from there."""
    try:
        here = str(Path.cwd())
    except OSError:  # it was removed
        return text
    if here == os.sep:
        return text
    # Where a path begins, and not in the middle of another one.
    return re.sub(rf"(?<![\w.{os.sep}-]){re.escape(here + os.sep)}", "", text)


def ranges(what: str, numbers: Sequence[int], among: Sequence[int]) -> str:
    """Some of a series of numbers: `"layers 0-3, 5"`.

    **Arguments:**

    - `what`: what they number.
    - `numbers`: which, in order.
    - `among`: the series; a range skips none of it.

    **Returns:**

    Text.
    """
    if len(numbers) == 1:
        return f"{what} {numbers[0]}"
    place = {number: n for n, number in enumerate(among)}
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and place[number] == place[found[-1][1]] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    if len(found) > _RANGES:
        return f"some of {what}s {numbers[0]}-{numbers[-1]}"
    return f"{what}s " + ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
