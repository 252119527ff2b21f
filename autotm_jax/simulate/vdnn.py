"""vDNN: the inputs of convolutions leave in the forward pass and come back in time.

Rhu, Gimelshein, Clemons, Zulfiqar and Keckler, "vDNN: Virtualized Deep Neural Networks
for Scalable, Memory-Efficient Neural Network Design", MICRO 2016, in its static form
that offloads the inputs of convolutions (vDNN_conv) with the fastest algorithms:

- What a forward convolution reads, and the backward pass reads again, is copied to the
    host beside the last forward segment that reads it, and is gone when that ends.
- Beside each backward segment, what the next ones need is fetched: the search goes on
    to the next convolution and ends with the first segment that lacks something.
- When a segment ends, everything waits for the copies beside it.
- What is needed and not there is fetched at once, and everything waits.

All is decided by the order of the segments: a memory limit plays no part. All times are
simulated.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection

from ..solve import Problem, Schedule, Tensor, replay
from .engine import Task, run_tasks
from .lanes import Engines, Lane
from .outcome import Outcome
from .playing import engines_of


def vdnn(
    problem: Problem,
    convolutions: Collection[int],
    backward: int,
    engines: Engines | None = None,
) -> Outcome:
    """A step as vDNN runs it.

    **Arguments:**

    - `problem`: the step. Its limits are not looked at but for the note.
    - `convolutions`: segments that convolve, forward and backward. With all segments it
        is vDNN_all, which offloads what any of them reads.
    - `backward`: the first segment of the backward pass.
    - `engines`: what copies; the problem's link by default.

    **Returns:**

    An `Outcome`. What loops make or read stays on the device.
    """
    trips = _trips(problem, set(convolutions), backward)
    state = replay(problem, Schedule())
    device = state.device.copy()
    for trip in trips:
        device[trip.gone : trip.back] -= trip.tensor.nbytes
    peak = int(device.max(initial=0))
    tasks = _tasks(problem, trips)
    run = run_tasks(tasks, engines or engines_of(problem.link))
    moved = sum(trip.tensor.nbytes for trip in trips)
    note = ""
    if peak > problem.device_limit:
        limit = int(problem.device_limit)
        note = f"It needs {peak} device bytes, over the limit of {limit}."
    return Outcome("vDNN", float(run.makespan), moved, moved, peak, note=note)


@dataclasses.dataclass(frozen=True)
class _Trip:
    """A tensor to the host, beside segment `out`, and back.

    It comes back beside segment `back`, or before it if everything `waits`.
    """

    tensor: Tensor
    out: int
    back: int
    waits: bool

    @property
    def gone(self) -> int:
        """The first segment without it."""
        return self.out + 1


def _trips(problem: Problem, convolutions: set[int], backward: int) -> list[_Trip]:
    wanted: dict[int, list[tuple[Tensor, int]]] = defaultdict(list)
    for tensor in problem.tensors:
        if not _is_plain(tensor):
            continue
        reads = [k for k in tensor.touches[1:] if k < backward]
        later = [k for k in tensor.touches if k >= backward]
        if later and not convolutions.isdisjoint(reads) and reads[-1] + 1 < later[0]:
            wanted[later[0]].append((tensor, reads[-1]))
    trips = []
    for k in range(backward, problem.segments):
        trips += [_Trip(t, out, k, True) for t, out in wanted.pop(k, ())]
        for ahead in range(k + 1, problem.segments):
            if ahead in wanted:
                trips += [_Trip(t, out, k, False) for t, out in wanted.pop(ahead)]
                break
            if ahead in convolutions:
                break
    return trips


def _is_plain(tensor: Tensor) -> bool:
    is_outside = tensor.crossing is None and tensor.times == 1 and not tensor.closed
    return tensor.movable and tensor.carried is None and is_outside


def _tasks(problem: Problem, trips: list[_Trip]) -> list[Task]:
    """Segments, and copies that start and end with them."""
    alone: dict[int, list[Task]] = defaultdict(list)
    beside: dict[int, list[Task]] = defaultdict(list)
    for trip in trips:
        beside[trip.out].append(Task(Lane.D2H, trip.tensor.nbytes))
        where = alone if trip.waits else beside
        where[trip.back].append(Task(Lane.H2D, trip.tensor.nbytes))
    tasks: list[Task] = []
    ready: tuple[int, ...] = ()
    for k, seconds in enumerate(problem.compute):
        for copy in alone[k]:
            tasks.append(dataclasses.replace(copy, after=ready))
            ready = (len(tasks) - 1,)
        first = len(tasks)
        for task in (*beside[k], Task(Lane.COMPUTE, seconds)):
            tasks.append(dataclasses.replace(task, after=ready))
        ready = tuple(range(first, len(tasks)))
    return tasks
