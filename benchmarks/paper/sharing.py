"""Work that takes long, done by processes one after the other.

One such row of processes runs beside everything else. When what they find is waited
for, another one works from the other end.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any


class Shared:
    """Lines of work, each done by a process of its own, that are begun at once.

    **Arguments:**

    - `module`: what Python runs. It prints what it found as JSON, in its last line.
    - `lines`: the arguments of each process, those that take longest first.
    - `say`: told what is begun, and what was found.
    """

    def __init__(
        self, module: str, lines: Sequence[Sequence[str]], say: Callable[[str], None]
    ):
        self._command, self._say = [sys.executable, "-m", module], say
        self._lines = [tuple(line) for line in lines]
        self._left = collections.deque(self._lines)
        self._found: dict[tuple[str, ...], Any] = {}
        self._running: set[subprocess.Popen[str]] = set()
        self._is_closed = False
        self._pool = ThreadPoolExecutor(2)
        self._beside = self._pool.submit(self._work, self._left.popleft)

    def results(self) -> list[Any]:
        """What was found, by the order of the lines.

        **Raises:**

        - `subprocess.CalledProcessError`: if a process failed. Then all others end.
        """
        rows = self._beside, self._pool.submit(self._work, self._left.pop)
        ended, _ = wait(rows, return_when=FIRST_EXCEPTION)
        self.close()
        for row in ended:
            row.result()
        return [self._found[line] for line in self._lines]

    def close(self) -> None:
        """Ends what runs, and begins nothing more."""
        self._is_closed = True
        self._left.clear()
        for process in tuple(self._running):
            process.kill()
        self._pool.shutdown()

    def _work(self, take: Callable[[], tuple[str, ...]]) -> None:
        while not self._is_closed:
            try:
                line = take()
            except IndexError:
                return
            self._say(f"{' '.join(line)} begins")
            self._found[line] = self._run(line)
            self._say(f"{' '.join(line)}: {self._found[line]}")

    def _run(self, line: tuple[str, ...]) -> Any:
        command = [*self._command, *line]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._running.add(process)
        if self._is_closed:
            process.kill()
        printed, _ = process.communicate()
        self._running.discard(process)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return json.loads(printed.splitlines()[-1])
