"""Steps whose kernels read both memories: under a plan, or with each tensor in one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from ..solve import Problem, Schedule, replay
from .kernels import Kernel
from .memories import Memories
from .outcome import Outcome


def placed(
    name: str,
    problem: Problem,
    kernels: Sequence[Kernel],
    memories: Memories,
    slow: Collection[int],
    note: str = "",
) -> Outcome:
    """A step in which tensors are in one memory for life.

    **Arguments:**

    - `name`, `note`: of the outcome.
    - `problem`, `kernels`, `memories`: what runs, and where.
    - `slow`: tensors, by position, that are in slow memory. The others are in the fast
        one, as are the values too small to decide about.

    **Returns:**

    An `Outcome`.
    """
    device = problem.resident.copy()
    for index, tensor in enumerate(problem.tensors):
        if index not in slow:
            device[tensor.touches[0] : tensor.touches[-1] + 1] += tensor.nbytes
    return Outcome(
        name,
        sum(kernel.time(memories, slow) for kernel in kernels),
        fast_bytes=int(device.max(initial=0)),
        fast_read=_found(kernels, [slow] * len(kernels)),
        note=note,
    )


def planned(
    name: str,
    problem: Problem,
    kernels: Sequence[Kernel],
    memories: Memories,
    schedule: Schedule,
) -> Outcome:
    """A step under a plan whose copies everything waits for.

    **Arguments:**

    - `name`: of the outcome.
    - `problem`, `kernels`, `memories`: what runs, and where.
    - `schedule`: the plan, of AutoTM's static or synchronous program. What it streams
        is what kernels find in slow memory.

    **Returns:**

    An `Outcome`. Its seconds are those of the kernels where they find their tensors and
    of the copies; the note names rules that the plan breaks.
    """
    tensors = {t.value: i for i, t in enumerate(problem.tensors)}
    slow: dict[int, set[int]] = defaultdict(set)
    for stream in schedule.streams:
        slow[stream.at].add(tensors[stream.value])
    size = {t.value: t.nbytes for t in problem.tensors}
    out = sum(size[store.value] for store in schedule.stores)
    into = sum(size[fetch.value] for fetch in schedule.fetches)
    seconds = sum(k.time(memories, slow[at]) for at, k in enumerate(kernels))
    seconds += out / memories.out + into / memories.into
    copies = len(schedule.stores) + len(schedule.fetches)
    state = replay(problem, schedule)
    return Outcome(
        name,
        seconds + copies * problem.link.latency,
        out,
        into,
        state.device_peak,
        _found(kernels, [slow[at] for at in range(len(kernels))]),
        " ".join(state.faults),
    )


def _found(kernels: Sequence[Kernel], slow: Sequence[Collection[int]]) -> float:
    # The part of the bytes that kernels read and write which is in fast memory.
    every = sum(kernel.nbytes() for kernel in kernels)
    away = sum(k.nbytes(among) for k, among in zip(kernels, slow, strict=True))
    return 1 - away / every if every else 1.0
