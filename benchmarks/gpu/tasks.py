"""What there is to do, the most important first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from .cases import GPT, Case
from .ways import (
    AT_FULL,
    AT_TIGHT,
    GROUPS,
    ON_CARD,
    PLAIN,
    REMAT,
    REST,
    planned,
    suitable,
)


Kind = Literal["machine", "times", "peak", "largest"]

_FEWEST = (PLAIN.name, REMAT.name)

BEYOND = 4
"""How many times the largest batch of plain `jax.jit` is trained, too."""

_BEFORE_BEYOND = 3
"""After how many of the workloads."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What one process does.

    - `kind`: of what is done.
    - `case`: the workload.
    - `ways`: names of the ways to run it.
    - `factor`: if not 1, the batch is so many times the largest of plain `jax.jit`.
    - `small`, `target`, `platform`: of the whole run: whether workloads are small, the
        card that is compiled for, and otherwise what is measured.
    - `batch`: at which; `None` for one that fits.
    - `plain`, `full`: device bytes of plain `jax.jit` and of full rematerialisation, if
        they are known.
    - `machine`: as measured, if it is known.
    - `seconds`, `estimate`: that it may take, and that one way may be expected to.
    """

    kind: Kind
    case: str
    ways: Sequence[str] = ()
    factor: int = 1
    small: bool = False
    target: str | None = None
    platform: str | None = None
    batch: int | None = None
    plain: int | None = None
    full: int | None = None
    machine: Mapping[str, Any] | None = None
    seconds: float = float("inf")
    estimate: float = 0.0

    def __str__(self) -> str:
        at = f" at {self.factor} x plain's largest batch" if self.factor > 1 else ""
        said = f"{self.kind} of {self.case}{at}"
        return f"{said}: {', '.join(self.ways)}" if self.ways else said


def tasks(
    cases: Mapping[str, Case], measures: bool, full: bool, few: bool
) -> Iterator[Task]:
    """All tasks, in the order of their importance: workloads take turns.

    **Arguments:**

    - `cases`: the workloads, by name.
    - `measures`: whether there is a device: memory of processes is looked at then.
    - `full`: whether time does not count.
    - `few`: whether the first ways will do, and fewer for all but the first workload.
    """
    first = next(iter(cases))
    yield Task("machine", first)
    groups = GROUPS[:1] if few else (*GROUPS, *(REST if full else ()))
    for number, group in enumerate(groups):
        for position, case in enumerate(cases.values(), 1):
            ways = [way.name for way in suitable(group, case)]
            if few and case.name != first:
                ways = [name for name in ways if name in _FEWEST]
            if ways and PLAIN.name not in ways:
                ways.insert(0, PLAIN.name)  # to be compared with, in the same process
            if ways:
                yield Task("times", case.name, ways)
            is_time = number == 0 and position == min(_BEFORE_BEYOND, len(cases))
            if is_time and GPT in cases:
                yield Task("largest", GPT, [PLAIN.name])
                yield Task("times", GPT, [ON_CARD.name, PLAIN.name], BEYOND)
        if measures and number == 0:
            yield from _peaks(cases, full)
    if full:
        for case in cases.values():
            for way in suitable((PLAIN, REMAT, planned("joint", "card")), case):
                if (case.name, way) != (GPT, PLAIN):
                    yield Task("largest", case.name, [way.name])


def _peaks(cases: Mapping[str, Case], full: bool) -> Iterator[Task]:
    every = [case for case in cases.values() if full or case.name == GPT]
    for way in (AT_TIGHT, PLAIN, AT_FULL):
        for case in every:
            if way.suits(case):
                yield Task("peak", case.name, [way.name])
