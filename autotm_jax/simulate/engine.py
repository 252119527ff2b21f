"""What a machine does with a list of tasks, event by event.

There are three lanes: compute, and a copy engine per direction. Each serves its tasks
in the order given, one at a time. A task starts when its lane is free and what it waits
for has ended. What is running together shares the machine, as `Engines` says; whenever
a task starts or ends, everyone's pace is worked out anew. All times are simulated.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from .lanes import Engines, Lane


@dataclasses.dataclass(frozen=True)
class Task:
    """Something that a lane does.

    - `lane`: which.
    - `work`: seconds of compute with nothing beside it, or bytes to copy.
    - `after`: tasks, by position, that must have ended before it starts.
    - `copies`: how many copies it stands for, one after the other.
    """

    lane: Lane
    work: float
    after: tuple[int, ...] = ()
    copies: int = 1


@dataclasses.dataclass(frozen=True)
class Span:
    """When a task runs: its position in the list, and seconds from the beginning."""

    task: int
    begin: float
    end: float


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of a list of tasks, simulated.

    - `spans`: of the tasks, in their order.
    - `makespan`: seconds until the last one ends.
    - `stalls`: `(begin, end)`, seconds at which compute has nothing to do, until the
        last task ends.
    """

    spans: tuple[Span, ...]
    makespan: float
    stalls: tuple[tuple[float, float], ...]

    @property
    def stalled(self) -> float:
        """Seconds of all stalls."""
        return sum(end - begin for begin, end in self.stalls)


def run_tasks(tasks: Sequence[Task], engines: Engines) -> Run:
    """Serves a list of tasks.

    **Arguments:**

    - `tasks`: each lane serves its own in this order.
    - `engines`: how fast.

    **Returns:**

    A `Run`. Fractions in, fractions out: nothing is rounded then.

    **Raises:**

    - `ValueError`: if tasks wait for each other, for one that is not there, or take
        less than nothing.
    """
    _check(tasks)
    return _Runner(tasks, engines).run()


def _check(tasks: Sequence[Task]) -> None:
    for index, task in enumerate(tasks):
        if not task.work >= 0 or task.copies < 0:
            raise ValueError(
                f"Task {index} is {task.work} of work in {task.copies} copies, and "
                "nothing takes less than nothing."
            )
        missing = [other for other in task.after if not 0 <= other < len(tasks)]
        if missing:
            raise ValueError(
                f"Task {index} waits for task {missing[0]}, and there are "
                f"{len(tasks)} tasks."
            )


@dataclasses.dataclass
class _Running:
    task: int
    lane: Lane
    begin: float
    delay: float  # seconds until the first byte
    left: float  # work


class _Runner:
    def __init__(self, tasks: Sequence[Task], engines: Engines):
        self.tasks, self.engines = tasks, engines
        # Tasks by what serves them, the next one last.
        self.queues: dict[Lane, list[int]] = {lane: [] for lane in Lane}
        self.pending = [len(set(task.after)) for task in tasks]
        self.waiting: dict[int, list[int]] = defaultdict(list)
        for index in reversed(range(len(tasks))):
            self.queues[self._server(index)].append(index)
            for other in set(tasks[index].after):
                self.waiting[other].append(index)
        self.running: dict[Lane, _Running] = {}
        self.spans: list[Span | None] = [None] * len(tasks)

    def _server(self, index: int) -> Lane:
        lane = self.tasks[index].lane
        both = self.engines.one_engine and lane is Lane.H2D
        return Lane.D2H if both else lane

    def run(self) -> Run:
        now = 0
        while any(self.queues.values()) or self.running:
            self._start(now)
            if not self.running:
                raise ValueError(self._deadlock(now))
            now = self._advance(now)
        spans = tuple(span for span in self.spans if span is not None)
        return Run(spans, now, tuple(self._stalls(spans, now)))

    def _start(self, now: float) -> None:
        for server, queue in self.queues.items():
            if server in self.running or not queue or self.pending[queue[-1]]:
                continue
            index = queue.pop()
            task = self.tasks[index]
            is_copy = task.lane is not Lane.COMPUTE
            delay = task.copies * self.engines.latency if is_copy else 0
            self.running[server] = _Running(index, task.lane, now, delay, task.work)

    def _advance(self, now: float) -> float:
        """To the next event: a first byte, or the end of a task."""
        beside = [item.lane for item in self.running.values() if not item.delay]
        paces = {lane: self.engines.pace(lane, beside) for lane in beside}
        lefts = {
            server: item.delay or item.left * paces[item.lane]
            for server, item in self.running.items()
        }
        step = min(lefts.values())
        now = now + step
        for server, item in list(self.running.items()):
            is_over = lefts[server] == step
            if item.delay:
                item.delay = 0 if is_over else item.delay - step
            elif is_over:
                self._end(server, now)
            else:
                # Rounding must not leave less than nothing.
                item.left = max(0, item.left - step / paces[item.lane])
        return now

    def _end(self, server: Lane, now: float) -> None:
        item = self.running.pop(server)
        self.spans[item.task] = Span(item.task, item.begin, now)
        for other in self.waiting[item.task]:
            self.pending[other] -= 1

    def _stalls(
        self, spans: Sequence[Span], makespan: float
    ) -> list[tuple[float, float]]:
        free, stalls = 0, []
        for span in spans:
            if self.tasks[span.task].lane is Lane.COMPUTE:
                stalls.append((free, span.begin))
                free = span.end
        stalls.append((free, makespan))
        return [(begin, end) for begin, end in stalls if begin < end]

    def _deadlock(self, now: float) -> str:
        heads = []
        for server, queue in self.queues.items():
            if queue:
                after = self.tasks[queue[-1]].after
                left = [str(other) for other in after if self.spans[other] is None]
                heads.append(
                    f"{server.value} is at task {queue[-1]}, which waits for "
                    + " and ".join(left)
                )
        return f"Nothing goes on after {now} seconds: {'; '.join(heads)}."
