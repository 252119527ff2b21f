"""What a process does for a task, on the device or for one that is described."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import jax

import autotm_jax as autotm

from . import largest as sizes
from . import speeds
from .cases import SMALL_CARD, Case
from .prepared import Known, Prepared, memory_stats, prepare, usable_bytes
from .reasons import reason_of
from .rounds import ROUNDS, SEED, Timed, interleaved
from .row import Row
from .stalls import profiled
from .tasks import Kind, Task
from .ways import BY_NAME, PLAIN


Say = Callable[[dict[str, Any]], None]

NO_TIME = "no time was left"
"""The error of what was not begun."""

# Seconds that are kept to run a program once it is compiled.
_RUNNING = 5.0

# Steps of a program in its profile, and in a process that only looks at memory.
_PROFILED = 2
_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Work:
    """A task, where it is done.

    - `task`: what to do.
    - `case`: the workload.
    - `target`: what to compile for.
    - `say`: is told what was found.
    - `end`: by when, on the monotonic clock.
    """

    task: Task
    case: Case
    target: autotm.Target
    say: Say
    end: float

    def left(self) -> float:
        """Seconds until it has to end."""
        return self.end - time.monotonic()

    @property
    def limit(self) -> int:
        """Bytes of the card."""
        return SMALL_CARD if self.task.small else usable_bytes(self.target)

    @property
    def known(self) -> Known:
        """What budgets are relative to, as far as it is known from other tasks."""
        return Known(self.task.plain, self.task.full, self.limit)


def look_at_machine(work: Work) -> None:
    """What the machine is, and what it does."""
    work.say({"machine": speeds.as_json(work.target.machine)})
    if work.target.is_present:
        work.say({"products": speeds.products()})
        if work.target.machine.has_host_memory:
            work.say({"copies": speeds.copies()})


def time_steps(work: Work) -> None:
    """Compiles a workload in several ways, and times them in turns."""
    case, task, batch = work.case, work.task, work.task.batch
    known, longest = work.known, task.estimate
    ready: dict[str, Prepared] = {}
    fitted = None
    if batch is None:
        batch, fitted = sizes.fitting(case, PLAIN, work.target, work.limit)
        work.say({"batch": {case.name: batch}})
    for name in task.ways:
        to_run = _RUNNING * len(ready) if work.target.is_present else 0.0
        if work.left() < longest + to_run:
            work.say(_row(Row(case.name, batch, name, error=NO_TIME)))
            continue
        begun = time.monotonic()
        try:
            found = fitted if name == PLAIN.name else None
            found = found or prepare(case, batch, BY_NAME[name], work.target, known)
        except Exception as error:  # noqa: BLE001 - the others go on
            work.say(_row(Row(case.name, batch, name, error=reason_of(error))))
            continue
        longest = max(longest, time.monotonic() - begun)
        known = known.with_row(found.row)
        ready[name] = dataclasses.replace(found, row=_noted(found.row, known.card))
        work.say(_row(ready[name].row))
    if work.target.is_present:
        _run(work, batch, ready)


def _noted(row: Row, card: int) -> Row:
    if row.device_bytes is None or row.device_bytes <= card:
        return row
    note = f"it takes more than the {card // 2**20:,} MiB that there are"
    return dataclasses.replace(row, notes=(*row.notes, note))


def _run(work: Work, batch: int, ready: dict[str, Prepared]) -> None:
    make = work.case.workload(batch).make
    rows = {name: found.row for name, found in ready.items()}
    plain = Timed()

    def seen(name: str, timed: Timed) -> None:
        nonlocal plain
        plain = timed if name == PLAIN.name else plain
        rows[name] = dataclasses.replace(
            rows[name],
            samples=tuple(timed.samples),
            losses=tuple(timed.losses),
            plain_losses=tuple(plain.losses),
            plain_seconds=median(plain.samples) if plain.samples else None,
            error=timed.error,
        )
        work.say(_row(rows[name]))

    steps = {name: found.step for name, found in ready.items()}
    interleaved(steps, make, ROUNDS, work.left, seen)
    for name, step in steps.items():
        if rows[name].samples and work.left() > 0:
            work.say(_row(_with_overlap(rows[name], step, make)))


def _with_overlap(row: Row, step: Any, make: Callable[[int], Any]) -> Row:
    def run() -> Any:
        nonlocal state
        for _ in range(_PROFILED):
            state, loss = step(state, batch)
        return loss

    try:
        state, batch = make(SEED)
        jax.block_until_ready(run())  # the state is where the step wants it, then
        found = profiled(run)
    except Exception as error:  # noqa: BLE001 - the times stand without it
        note = f"there is no profile: {reason_of(error)}"
        return dataclasses.replace(row, notes=(*row.notes, note))
    if found is None:
        return row
    return dataclasses.replace(
        row,
        kernel_seconds=found.kernels / _PROFILED,
        copy_seconds=found.copies / _PROFILED,
        stall_seconds=found.stalled / _PROFILED,
        idle_seconds=found.idle / _PROFILED,
    )


def look_at_peak(work: Work) -> None:
    """The allocator's peak of a process that runs one program."""
    case, batch, (name,) = work.case, work.task.batch, work.task.ways
    assert batch is not None
    found = prepare(case, batch, BY_NAME[name], work.target, work.known)
    state, inputs = case.workload(batch).make(SEED)
    for _ in range(_STEPS):
        state, loss = found.step(state, inputs)
        jax.block_until_ready((state, loss))
    stats = memory_stats()
    if "peak_bytes_in_use" not in stats:
        raise RuntimeError("This device does not report the peak of its memory.")
    peak = int(stats["peak_bytes_in_use"])
    work.say({"peak": {"key": [case.name, batch, name], "bytes": peak}})


def look_for_largest(work: Work) -> None:
    """The largest batch of a workload that fits, run in one way."""
    case, (name,), limit = work.case, work.task.ways, work.limit
    base = work.task.batch or case.batch
    nbytes = sizes.bytes_of(case, BY_NAME[name], work.target, limit)
    tries = sizes.FEW_TRIES if work.task.small else sizes.TRIES
    state = jax.tree.leaves(case.workload(base).args[0])
    known = {0: sum(leaf.size * leaf.dtype.itemsize for leaf in state)}
    if name == PLAIN.name and work.task.plain is not None:
        known[base] = work.task.plain
    step = max(1, base // 8)
    batch, tried = sizes.largest(nbytes, base, limit, step, tries, known, work.left)
    if batch is None:
        raise RuntimeError(f"No batch that was tried fits into {limit:,} bytes.")
    found = {"case": case.name, "way": name, "batch": batch, "limit": limit}
    work.say({"largest": {**found, "tried": {str(b): n for b, n in tried.items()}}})


DO: Mapping[Kind, Callable[[Work], None]] = {
    "machine": look_at_machine,
    "times": time_steps,
    "peak": look_at_peak,
    "largest": look_for_largest,
}
"""What to do for each kind of task."""


def _row(row: Row) -> dict[str, Any]:
    return {"row": dataclasses.asdict(row)}
