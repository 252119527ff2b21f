"""Does tasks one after the other, each in a process of its own, within a time.

A process that fails, crashes or takes too long costs the row that it was at: the reason
becomes that row's, and another process goes on with the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .doing import NO_TIME
from .results import Results
from .row import Row
from .tasks import Task
from .ways import PLAIN


Say = Callable[[str], None]
Take = Callable[[dict[str, Any]], None]

# Of all the time, what one task may take before it begins nothing more; and how many
# times that, before it is ended.
_SHARE = 0.25
_PATIENCE = 1.6

# Seconds of a task without an answer, where time does not count.
_LONGEST = 7200.0

# Seconds that are kept to end a process and to write.
_RESERVE = 5.0

# Seconds to expect of one way before anything is known: measured, compiled, small.
_ESTIMATES = {"measured": 25.0, "compiled": 15.0}
_SMALL = 4.0


@dataclasses.dataclass(frozen=True)
class Box:
    """The time that there is.

    - `seconds`: all of it; `inf` if it does not count.
    - `begun`: on the monotonic clock.
    """

    seconds: float
    begun: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until everything has to be written."""
        return self.begun + self.seconds - _RESERVE - time.monotonic()

    @property
    def of_a_task(self) -> float:
        """Seconds after which a task begins nothing more."""
        return min(_LONGEST, _SHARE * self.seconds, self.left)


def work_off(
    wanted: Iterable[Task],
    results: Results,
    env: Mapping[str, str],
    box: Box,
    say: Say,
) -> None:
    """Does what is not done yet, the most important first.

    **Arguments:**

    - `wanted`: the tasks, in their order.
    - `results`: what is known; saved whenever there is more.
    - `env`: the environment of the processes.
    - `box`: the time that there is. What would likely not end in it is not begun.
    - `say`: told what is being done.
    """
    left: list[str] = []
    for task in wanted:
        while True:
            missing = results.missing(task)
            if missing is None:
                break
            reason = _why_not(task, missing, results, box)
            if not reason:
                said = replace_ways(task, missing)
                say(f"{said} ({box.left:.0f} s left)" if _counts(box) else str(said))
                reason = _do(task, missing, results, env, box)
                if not reason and results.missing(task) == missing:
                    results.failed[str(task)] = reason = "it said nothing"
            if reason:
                still = results.missing(task) or missing
                left.append(f"{replace_ways(task, still)} ({reason})")
                say(left[-1])
                break
    results.left = left
    results.save()


def replace_ways(task: Task, ways: Iterable[str]) -> Task:
    """The same task of other ways."""
    return dataclasses.replace(task, ways=tuple(ways))


def _counts(box: Box) -> bool:
    return box.seconds < float("inf")


def _why_not(task: Task, missing: Iterable[str], results: Results, box: Box) -> str:
    if task.factor > 1 and results.batch_of(task) is None:
        return "the largest batch of plain jax.jit is not known"
    if task.kind == "peak" and results.batch_of(task) is None:
        return "no batch is known that fits"
    ways = min(2, len(tuple(missing)))
    if box.left < max(1, ways) * _estimate(task, results):
        return NO_TIME
    return ""


def _estimate(task: Task, results: Results) -> float:
    if results.setting.small:
        return _SMALL
    return results.took.get(task.case, _ESTIMATES[results.setting.form])


def _do(
    task: Task,
    missing: tuple[str, ...],
    results: Results,
    env: Mapping[str, str],
    box: Box,
) -> str:
    """Does what is missing of a task in a process; says why if some of it is left."""
    known = {row.key for row in results.rows.values() if results.is_done(row)}
    seconds, begun = box.of_a_task, time.monotonic()
    ways = list(missing)
    if task.kind == "times" and results.setting.form == "measured":
        # What others are compared to runs beside them, also if it is known.
        ways = [w for w in task.ways if w in missing or w == PLAIN.name]
    sent = dataclasses.replace(
        replace_ways(task, ways),
        batch=results.batch_of(task),
        machine=results.machine if task.kind != "machine" else None,
        seconds=seconds,
        estimate=_estimate(task, results),
        **results.relative_to(task),
    )
    out_of_time: list[str] = []

    def take(message: dict[str, Any]) -> None:
        row = message.get("row")
        if row is not None and row["error"] == NO_TIME:
            out_of_time.append(row["way"])
            return
        if row is not None and (row["case"], row["batch"], row["way"]) in known:
            return
        results.take({k: v for k, v in message.items() if k != "failed"})
        results.save()

    patience = _PATIENCE * seconds if _counts(box) else _LONGEST
    failed = in_a_process(sent, env, min(box.left, patience), take)
    if failed:
        _blame(task, missing, results, failed, set(out_of_time))
    if task.kind == "times" and task.factor == 1:
        each = (time.monotonic() - begun) / max(1, len(ways) - len(out_of_time))
        results.took[task.case] = max(each, results.took.get(task.case, 0.0))
    results.save()
    return NO_TIME if out_of_time else ""


def _blame(
    task: Task,
    missing: tuple[str, ...],
    results: Results,
    reason: str,
    spared: set[str],
) -> None:
    """Gives the reason of a failure to what the process was at."""
    batch = results.batch_of(task)
    if task.kind != "times" or batch is None:
        results.failed[str(task)] = reason
        return
    rows = {w: results.rows.get((task.case, batch, w)) for w in missing}
    if all(rows.values()):  # they have been compiled: it was running them
        at = [w for w in missing if not results.is_done(rows[w])]
    else:
        at = [w for w in missing if rows[w] is None and w not in spared][:1]
    for way in at:
        row = rows[way] or Row(task.case, batch, way)
        results.take_row(dataclasses.replace(row, error=reason))
    if not at and results.missing(task):
        results.failed[str(task)] = reason


def in_a_process(task: Task, env: Mapping[str, str], seconds: float, take: Take) -> str:
    """Does a task in a process.

    **Arguments:**

    - `task`: what to do.
    - `env`: its environment.
    - `seconds`: after which it is ended.
    - `take`: given what it says.

    **Returns:**

    Why it failed, or an empty text.
    """
    text = json.dumps(dataclasses.asdict(task))
    command = [sys.executable, "-m", "benchmarks.gpu.worker", text]
    reason = ""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=dict(env),
            start_new_session=True,  # what it starts itself ends with it
        )
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(0.0, seconds), end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                message = json.loads(line)
                reason = message.get("failed", reason)
                take(message)
            code = process.wait()
        except BaseException:
            end()
            raise
        finally:
            timer.cancel()
            timer.join()
        if is_late.is_set():
            return f"no answer within {seconds:.0f} s"
        if code and not reason:
            log.seek(0)
            last = [line for line in log.read().splitlines() if line.strip()][-1:]
            said = f": {last[0].strip()[:300]}" if last else ""
            how = f"by signal {-code}" if code < 0 else f"with status {code}"
            reason = f"the process ended {how}{said}"
    return reason
