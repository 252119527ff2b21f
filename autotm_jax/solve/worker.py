"""The solver in a process of its own.

HiGHS looks at the clock only between its steps, and one step may take many times the
limit; and a solver that crashes takes its process with it. So it runs in another
process (`highs.py`), which reports every better solution as it is found, and which is
ended when it is late. The process is kept for the next solve; its start, a fraction of
a second, is a part of the limit if a solve waits for it. Where there can be no process,
HiGHS runs in this one: then a limit may be overrun, and a crash is not survived.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import highs


# Seconds after which a solver is late: this many times its limit, and a moment to hand
# over its answer.
_LATE = 1.05
_MOMENT = 0.3

# Seconds that a process gets to import HiGHS.
_START_SECONDS = 20.0


# Stands for: no message in time.
_NOTHING_YET = ("nothing yet",)


@functools.cache
def solver_name() -> str:
    """`HiGHS 1.16.0`."""
    try:
        return f"HiGHS {importlib.metadata.version('highspy')}"
    except importlib.metadata.PackageNotFoundError:
        return "HiGHS"  # that it is missing is said where it is asked


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a solver found.

    - `status`: HiGHS's name of it: `kOptimal`, `kInfeasible`, `kTimeLimit`, ...
    - `x`: `None` if there is no solution.
    - `reduced_costs`: per variable, of a problem without integers that was solved.
    - `objective`, `bound`: found and proved, without the problem's constant.
    - `failure`: a sentence if it did not come to an end by itself.
    """

    status: str
    x: np.ndarray | None = None
    reduced_costs: np.ndarray | None = None
    objective: float = float("inf")
    bound: float = -float("inf")
    failure: str = ""


class _Found:
    """What was reported so far."""

    def __init__(self) -> None:
        self.best = Outcome("kTimeLimit")

    def report(self, kind: str, *what: Any) -> None:
        bound = max(self.best.bound, what[-1])
        self.best = dataclasses.replace(self.best, bound=bound)
        if kind == "incumbent":
            x, objective, _ = what
            if objective < self.best.objective:
                self.best = dataclasses.replace(self.best, x=x, objective=objective)

    def stopped(self, failure: str, status: str) -> Outcome:
        return dataclasses.replace(self.best, status=status, failure=failure)


def _answered(answer: dict[str, Any]) -> Outcome:
    answer = dict(answer)
    if not np.isfinite(answer["objective"]) or not len(answer["x"]):
        answer |= {"x": None, "objective": float("inf")}
    if not len(answer["reduced_costs"]):
        answer["reduced_costs"] = None
    return Outcome(**answer)


class Process:
    """A solver's process.

    **Arguments:**

    - `command`: what is run: a program that speaks as `highs.py` does.

    **Raises:**

    - `OSError`: if there can be no process.
    """

    def __init__(self, command: list[str]):
        # It finds the packages that this process finds, wherever it is started.
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths},
            # An interrupt from the keyboard is for this process to handle.
            start_new_session=True,
        )
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(
            target=_forward, args=(self._process.stdout, self._messages), daemon=True
        ).start()
        self._is_ready = self._has_failed = False
        self._given_up = time.monotonic() + _START_SECONDS

    def is_ready(self, seconds: float = _START_SECONDS) -> bool:
        """Waits until it can take a problem, for so many seconds at most."""
        left = self._given_up - time.monotonic()
        if not self._is_ready and not self._has_failed:
            message = self._next(min(seconds, left))
            self._is_ready = message == ("ready",)
            is_late = message is _NOTHING_YET and seconds >= left
            self._has_failed = is_late or message not in (_NOTHING_YET, ("ready",))
        return self._is_ready

    def has_failed(self) -> bool:
        """Whether it turned out that it will never take a problem."""
        return self._has_failed

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """Ends it, whatever it does."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def solve(self, problem: dict[str, Any], time_limit: float) -> Outcome:
        """Solves, and ends the process if it is late.

        **Arguments:**

        - `problem`: as in `highs.py`.
        - `time_limit`: seconds.

        **Returns:**

        The answer, or the best that was reported until the process was ended or died.
        """
        late = time.monotonic() + _LATE * time_limit + _MOMENT
        # A process that does not read may not stop this one from looking at the clock.
        threading.Thread(
            target=_send, args=(self._process.stdin, problem), daemon=True
        ).start()
        found = _Found()
        while True:
            message = self._next(late - time.monotonic())
            if message is _NOTHING_YET:
                self.end()
                return found.stopped("", "kTimeLimit")
            if message is None:
                self.end()
                code = self._process.returncode
                sentence = f"The solver's process died: exit status {code}."
                return found.stopped(sentence, "kInterrupt")
            kind, *what = message
            if kind == "answer":
                return _answered(*what)
            if kind == "failed":
                return found.stopped(*what, status="kSolveError")
            found.report(kind, *what)

    def _next(self, seconds: float) -> Any:
        # `None` at the end of its messages.
        try:
            return self._messages.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return _NOTHING_YET


def _forward(stream: IO[bytes], messages: queue.SimpleQueue[Any]) -> None:
    message: Any = ()
    while message is not None:
        try:
            message = highs.receive(stream)  # pyright: ignore[reportArgumentType]
        except Exception:  # noqa: BLE001 - torn off in the middle, or no message at all
            message = None
        messages.put(message)
    stream.close()


def _send(stream: IO[bytes], problem: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, ValueError):  # it ended: seen from its messages
        highs.send(stream, problem)  # pyright: ignore[reportArgumentType]


class Worker:
    """Solves in a process that is kept from solve to solve.

    **Arguments:**

    - `command`: what is run; `None` if there can be no process.
    """

    def __init__(self, command: list[str] | None):
        self._command = command
        self._idle: Process | None = None
        self._lock = threading.Lock()
        self._solver = highs.Solver()  # of this process

    def prepare(self) -> None:
        """Starts a process, so that the first solve does not wait for it."""
        with self._lock:
            if self._idle is None:
                self._idle = self._started()

    def solve(self, problem: dict[str, Any], time_limit: float) -> Outcome:
        """Solves, in this process if there can be no other.

        **Arguments:**

        - `problem`: as in `highs.py`.
        - `time_limit`: seconds. An answer is at most a twentieth of it late, and 0.3 s.

        **Returns:**

        An `Outcome`.
        """
        end = time.monotonic() + time_limit
        process = self._taken()
        if process is None:
            return self._here(problem, end)
        try:
            if process.is_ready(time_limit):
                left = max(0.0, end - time.monotonic())
                return process.solve(_within(problem, left), left)
            if not process.has_failed():
                return Outcome("kTimeLimit")
            process.end()
            self._command = None  # nor will the next one be
        except BaseException:
            process.end()  # still at a problem that nobody waits for
            raise
        finally:
            self._put_back(process)
        return self._here(problem, end)

    def close(self) -> None:
        """Ends the process that is kept."""
        with self._lock:
            process, self._idle = self._idle, None
        if process is not None:
            process.end()

    def forget(self) -> None:
        """Leaves the process to the one that this one was forked from."""
        self._lock, self._idle = threading.Lock(), None

    def _here(self, problem: dict[str, Any], end: float) -> Outcome:
        found, left = _Found(), max(0.0, end - time.monotonic())
        try:
            return _answered(self._solver.solve(_within(problem, left), found.report))
        except Exception as error:  # noqa: BLE001 - whatever a solver does
            return found.stopped(f"{type(error).__name__}: {error}", "kSolveError")

    def _started(self) -> Process | None:
        if self._command is None:
            return None
        try:
            return Process(self._command)
        except OSError:
            self._command = None
            return None

    def _taken(self) -> Process | None:
        with self._lock:
            process, self._idle = self._idle, None
        if process is None or not process.is_alive():
            process = self._started()
        return process

    def _put_back(self, process: Process) -> None:
        # One is kept, though several may have run, for several threads.
        if not process.is_alive():
            self.prepare()
            return
        with self._lock:
            if self._idle is None:
                self._idle = process
                return
        process.end()


def _within(problem: dict[str, Any], seconds: float) -> dict[str, Any]:
    return problem | {"options": problem["options"] | {"time_limit": seconds}}


def _python() -> list[str] | None:
    # In a program that is one file, the executable is that program.
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    # -P: the modules beside the script are not what other packages mean by their names.
    return [sys.executable, "-P", str(Path(highs.__file__))]


WORKER = Worker(_python())
"""The one that this process has."""

atexit.register(WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER.forget)
