"""A plan on engines: when everything would happen, not only how long it would take.

The checker prices a copy by spreading its bytes over the segments beside it. Here the
copies queue up: each starts when the segment before its window has ended and its engine
is free, runs at the engine's rate, and the segment where its window ends waits for it.
Where a window has no length, everything waits for the copy. Seconds of segments,
recomputation and streams are the checker's. As there, a loop runs all iterations of a
segment one after the other, and all copies of a window in one go. `Link.reach`, how
early XLA starts a copy, is the checker's alone. The latency of each copy adds to the
checker's step, which hides none of it; here it passes on the copy's engine, and beside
compute where there is some: it adds as much at most. All times are simulated.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from ..solve import Fetch, Link, Problem, Replay, Schedule, Store, replay
from .engine import Run, Task, run_tasks
from .lanes import Engines, Lane
from .outcome import Outcome


Part = int | Store | Fetch | None
"""What a task is of a plan: a segment; a copy; or `None` for a stack's own time."""


@dataclasses.dataclass(frozen=True)
class Simulation:
    """A plan, simulated.

    - `tasks`: what the lanes have to do.
    - `parts`: what each of them is of the plan.
    - `run`: when.
    - `replay`: what the checker says: bytes, modelled seconds, and rules broken.
    - `out`, `into`: bytes copied to the host and from it, streams included.
    """

    tasks: tuple[Task, ...]
    parts: tuple[Part, ...]
    run: Run
    replay: Replay
    out: int
    into: int

    @property
    def seconds(self) -> float:
        """Of the whole step, simulated."""
        return float(self.run.makespan)

    @property
    def modelled(self) -> float:
        """Of the whole step, as the checker and the solver have it."""
        return self.replay.makespan

    def outcome(self, name: str) -> Outcome:
        """What it comes to, under a name."""
        peak = self.replay.device_peak
        note = " ".join(self.replay.faults)
        return Outcome(name, self.seconds, self.out, self.into, peak, note=note)


def engines_of(link: Link, one_engine: bool = False) -> Engines:
    """The engines of a link, which do not disturb compute."""
    return Engines(link.d2h, link.h2d, link.duplex, link.latency, one_engine=one_engine)


def simulate(
    problem: Problem, schedule: Schedule, engines: Engines | None = None
) -> Simulation:
    """Plays a plan.

    **Arguments:**

    - `problem`, `schedule`: the plan. One that breaks rules is played, too, if its
        windows are within the step; the `Replay` says which rules.
    - `engines`: what copies; the problem's link by default.

    **Returns:**

    A `Simulation`.
    """
    state = replay(problem, schedule)
    player = _Player(problem, schedule, state)
    player.play()
    tasks = tuple(player.tasks)
    run = run_tasks(tasks, engines or engines_of(problem.link))
    out = sum(int(t.work) for t in tasks if t.lane is Lane.D2H)
    into = sum(int(t.work) for t in tasks if t.lane is Lane.H2D)
    for stream in schedule.streams:
        if stream.value not in player.tensors:
            continue
        tensor = player.tensors[stream.value]
        # What takes the place of what is carried is stored where it is made.
        made = tensor.touches[:1]
        if tensor.carried is not None:
            made = tensor.carried.made[:1]
        if stream.at in made:
            out += tensor.times * tensor.nbytes
        else:
            into += tensor.times * tensor.nbytes
    return Simulation(tasks, tuple(player.parts), run, state, out, into)


@dataclasses.dataclass(frozen=True)
class _Copy:
    part: Store | Fetch
    lane: Lane
    window: tuple[int, int]
    nbytes: int
    copies: int

    @property
    def waits(self) -> bool:
        """Whether everything waits for it."""
        return self.window[0] >= self.window[1]

    @property
    def order(self) -> tuple[int, ...]:
        """Engines serve what is due first, of what starts together."""
        return self.window[1], self.lane is Lane.H2D, self.part.value


class _Player:
    """Makes the tasks, cut by cut. None waits for a later one."""

    def __init__(self, problem: Problem, schedule: Schedule, state: Replay):
        self.problem, self.state = problem, state
        self.tasks: list[Task] = []
        self.parts: list[Part] = []
        self.starting: dict[int, list[_Copy]] = defaultdict(list)
        self.due: dict[int, list[int]] = defaultdict(list)
        self.extra: dict[int, float] = defaultdict(float)
        self.tensors = {tensor.value: tensor for tensor in problem.tensors}
        late = {store.value for store in schedule.stores if store.is_late}
        stacked = {value for value, _, _ in state.stacks}
        for store in schedule.stores:
            if store.value in self.tensors:
                times = self.tensors[store.value].times
                self._add(store, Lane.D2H, store.window, times)
        for fetch in schedule.fetches:
            if fetch.value not in self.tensors:
                continue
            tensor = self.tensors[fetch.value]
            self._add(fetch, Lane.H2D, fetch.window, tensor.times)
            if fetch.is_ahead and tensor.crossing and fetch.value not in late:
                # For the first iterations, before the loop.
                at = tensor.crossing.read[0]
                loops = tensor.times // tensor.crossing.count
                self._add(fetch, Lane.H2D, (at, at), loops)
        for tensor in problem.tensors:
            if tensor.crossing is not None and tensor.value in stacked:
                self.extra[tensor.crossing.made[1]] += tensor.crossing.seconds

    def _add(
        self, part: Store | Fetch, lane: Lane, window: tuple[int, int], copies: int
    ) -> None:
        first, end = window
        end = min(end, self.problem.segments)
        nbytes = self.tensors[part.value].nbytes
        copy = _Copy(part, lane, (first, end), nbytes, copies)
        self.starting[end if copy.waits else first].append(copy)

    def play(self) -> None:
        last: tuple[int, ...] = ()  # of compute
        for cut in range(self.problem.segments + 1):
            if self.extra[cut]:
                task = Task(Lane.COMPUTE, self.extra[cut], last)
                last = (self._task(task, None),)
            alone = self._alone(cut, (*last, *self.due[cut]))
            self._beside(cut, (*last, *alone))
            if cut < self.problem.segments:
                seconds = float(self.state.compute[cut])
                after = (*last, *self.due[cut], *alone)
                last = (self._task(Task(Lane.COMPUTE, seconds, after), cut),)

    def _alone(self, cut: int, ready: tuple[int, ...]) -> tuple[int, ...]:
        """What everything waits for: stores, then fetches, one after the other."""
        copies = [copy for copy in self.starting[cut] if copy.waits]
        last: tuple[int, ...] = ()
        for copy in sorted(copies, key=lambda copy: copy.order):
            last = (self._copy(copy, last or ready),)
        return last

    def _beside(self, cut: int, ready: tuple[int, ...]) -> None:
        # What is stored until this cut leaves its memory to what is fetched from here.
        leaving = [i for i in self.due[cut] if self.tasks[i].lane is Lane.D2H]
        copies = [copy for copy in self.starting[cut] if not copy.waits]
        for copy in sorted(copies, key=lambda copy: copy.order):
            after = (*ready, *leaving) if copy.lane is Lane.H2D else ready
            self.due[copy.window[1]].append(self._copy(copy, after))

    def _copy(self, copy: _Copy, after: tuple[int, ...]) -> int:
        work = copy.copies * copy.nbytes
        return self._task(Task(copy.lane, work, after, copy.copies), copy.part)

    def _task(self, task: Task, part: Part) -> int:
        self.tasks.append(task)
        self.parts.append(part)
        return len(self.tasks) - 1
