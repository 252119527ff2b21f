"""What the executable of a fragment shows: which buffer holds which value, and when.

The fragment was compiled between the makers of its operands and the readers of its
results, each in a name scope of its own, which XLA keeps in the metadata of kernels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from ..compile import Lifetimes
from ..timeline import Span, Timeline, timeline_of


FRAGMENT = "autotm_fragment"
"""The name scope of the fragment."""

_OPERAND, _RESULT = "autotm_operand_", "autotm_result_"


def operand_scope(position: int) -> str:
    """The name scope in which the operand at a position is made."""
    return f"{_OPERAND}{position}"


def result_scope(position: int) -> str:
    """The name scope in which the result at a position is read, alone."""
    return f"{_RESULT}{position}"


_SCOPE = re.compile(rf'%(\S+) = [^\n]*op_name="[^"]*/({FRAGMENT}|{_OPERAND}(\d+))/')
_READER = re.compile(rf"= [^=\n]*? fusion\(%([^,)\s]+)\)[^\n]*/{_RESULT}(\d+)/")
_WRITTEN = re.compile(r"^ *(?:ROOT )?%(\S+) = [^(\s]\S* (\S+?)\(", re.MULTILINE)
_VIEW = re.compile(
    r"%(\S+) = \S+ (?:bitcast|get-tuple-element)\(%([^,)\s]+)\)(?:, index=(\d+))?"
)
_TUPLE = re.compile(r"%(\S+) = [^\n]*? tuple\(([^)\n]*)\)")
_MEMBER = re.compile(r"%([^,\s]+)")
_READS = re.compile(r"%(\S+) = [^%\n]*? [\w-]+\((%[^)\n]*)\)")
_NOT_WRITTEN = {"bitcast", "get-tuple-element", "copy-done", "parameter"}


def plain_results(text: str) -> tuple[int, ...]:
    """Positions of the results that are all that a kernel writes.

    **Arguments:**

    - `text`: the scheduled HLO.
    """
    found = _WRITTEN.findall(text)
    written = {name for name, opcode in found if opcode not in _NOT_WRITTEN}
    read = _READER.findall(text)
    return tuple(sorted({int(i) for name, i in read if name in written}))


def observed_timeline(
    text: str, lifetimes: Lifetimes, surviving: Collection[int]
) -> Timeline | None:
    """When the buffers of the fragment are there.

    **Arguments:**

    - `text`: the scheduled HLO.
    - `lifetimes`: of all its buffers.
    - `surviving`: positions of the operands that are read again later.

    **Returns:**

    A `Timeline`, or `None` if the fragment is not found.
    """
    scopes = {name: (scope, i) for name, scope, i in _SCOPE.findall(text)}
    inside, made = [], []
    for position, kernel in enumerate(lifetimes.kernels):
        if kernel in scopes:
            scope, _ = scopes[kernel]
            (inside if scope == FRAGMENT else made).append(position)
    if not inside:
        return Timeline()
    # What depends on nothing may run before all operands are there.
    first = max(made) + 1 if made else min(inside)
    end = max(inside) + 1
    if first >= end:
        return None
    operands = {name: int(i) for name, (_, i) in scopes.items() if i}
    value = _values(text)
    results = {value(name): int(i) for name, i in _READER.findall(text)}
    spans = []
    for buffer in lifetimes.buffers:
        held = (operands.get(v.partition("{")[0]) for v in buffer.values)
        operand = next((i for i in held if i is not None), None)
        held = ((v, results[v]) for v in buffer.values if v in results)
        name, result = next(held, (None, None))
        maker = None if name is None else name.partition("{")[0]
        when = buffer.born, buffer.handed, buffer.dead
        spans.append(Span(buffer.nbytes, *when, operand, result, maker))
    # What is not seen to be read is there for the whole fragment.
    ticks = lifetimes.ticks
    read = {i: ticks[end] for i in surviving}
    seen = _last_reads(text, lifetimes.kernels[first:end], operands, value)
    read.update((i, ticks[first + at]) for i, at in seen.items() if i in read)
    return timeline_of(spans, ticks[first], ticks[end], read)


def _last_reads(
    text: str,
    kernels: Sequence[str],
    operands: Mapping[str, int],
    value: Callable[[str], str],
) -> dict[int, int]:
    """By operand, how many of these kernels run until it is not read any more."""
    place = {name: i for i, name in enumerate(kernels)}
    last: dict[int, int] = {}
    for kernel, read in _READS.findall(text):
        if kernel not in place:
            continue
        for name in _MEMBER.findall(read):
            operand = operands.get(value(name).partition("{")[0])
            if operand is not None:
                last[operand] = max(last.get(operand, 0), place[kernel] + 1)
    return last


def _values(text: str) -> Callable[[str], str]:
    """Tells the value, as XLA names it among live ranges, that an instruction shows."""
    views = {name: (of, index) for name, of, index in _VIEW.findall(text)}
    tuples = {name: _MEMBER.findall(of) for name, of in _TUPLE.findall(text)}

    def value(name: str) -> str:
        place = ""
        while name in views:
            of, index = views[name]
            if index and of in tuples:
                name = tuples[of][int(index)]
            else:
                name, place = of, f"{{{index}}}" if index else place
        return name + place

    return value
