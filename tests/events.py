"""What a list of tasks comes to, by the definition and nothing else."""

from collections.abc import Sequence
from fractions import Fraction

from autotm_jax.simulate import Engines, Lane, Task


F = Fraction


def naively(tasks: Sequence[Task], engines: Engines) -> list[tuple[Fraction, Fraction]]:
    """The definition, looked up anew for all tasks at every event.

    It knows no lanes and no queues: only what has ended, and how much is left.
    """

    def server(task: Task) -> Lane:
        return Lane.D2H if engines.one_engine and task.lane is Lane.H2D else task.lane

    delay = [t.copies * engines.latency * (t.lane is not Lane.COMPUTE) for t in tasks]
    left = [task.work for task in tasks]
    begin: dict[int, Fraction] = {}
    end: dict[int, Fraction] = {}
    now = F(0)
    while len(end) < len(tasks):
        for i, task in enumerate(tasks):
            before = {j for j in range(i) if server(tasks[j]) is server(task)}
            if i not in begin and end.keys() >= before | {*task.after}:
                begin[i] = now
        on = begin.keys() - end.keys()
        lanes = {tasks[i].lane for i in on if not delay[i]}
        copying = len(lanes - {Lane.COMPUTE})
        speed = {
            Lane.COMPUTE: F(1) / (1 + engines.compute_interference * copying),
            Lane.D2H: engines.d2h,
            Lane.H2D: engines.h2d,
        }
        both = engines.d2h + engines.h2d
        if lanes >= {Lane.D2H, Lane.H2D} and both > engines.duplex:
            speed[Lane.D2H] *= engines.duplex / both
            speed[Lane.H2D] *= engines.duplex / both
        if Lane.COMPUTE in lanes:
            speed[Lane.D2H] /= 1 + engines.copy_interference
            speed[Lane.H2D] /= 1 + engines.copy_interference
        step = min(delay[i] or left[i] / speed[tasks[i].lane] for i in on)
        for i in on:
            if delay[i]:
                delay[i] -= step
            else:
                left[i] -= step * speed[tasks[i].lane]
                if not left[i]:
                    end[i] = now + step
        now += step
    return [(begin[i], end[i]) for i in range(len(tasks))]
