"""What kernels lose if one of their tensors is in Optane."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from autotm_jax.solve import Schedule

from .posing import Posed
from .report import Cell, Table
from .study import GB


@dataclasses.dataclass(frozen=True)
class Use:
    """A kernel's pass over a tensor.

    - `nbytes`: that it reads or writes.
    - `is_write`: which of them.
    - `is_bound`: whether it waits for arithmetic, with everything in DRAM.
    - `lost`: seconds, if this tensor is in Optane.
    - `is_slow`: whether it is, as planned.
    """

    nbytes: int
    is_write: bool
    is_bound: bool
    lost: float
    is_slow: bool


def uses(case: Posed, schedule: Schedule) -> list[Use]:
    """All uses of tensors that a plan decides about.

    **Arguments:**

    - `case`: the step.
    - `schedule`: its plan.

    **Returns:**

    A `Use` for each tensor that a pass of a kernel reads or writes.
    """
    memories, out = case.memories, list[Use]()
    slow = {(stream.at, stream.value) for stream in schedule.streams}
    for k, kernel in enumerate(case.kernels):
        for step in kernel.passes:
            fast = step.time(memories)
            is_bound = step.seconds >= step.traffic(memories)
            for is_write, moved in ((False, step.reads), (True, step.writes)):
                for t, nbytes in moved.items():
                    lost = step.time(memories, {t}) - fast
                    is_slow = (k, case.problem.tensors[t].value) in slow
                    out.append(Use(nbytes, is_write, is_bound, lost, is_slow))
    return out


def uses_table(used: Mapping[str, Sequence[Use]]) -> Table:
    """What is lost, by what is done with a tensor and what the kernel waits for.

    **Arguments:**

    - `used`: all uses, by network.

    **Returns:**

    A `Table`.
    """
    rows: list[tuple[Cell, ...]] = []
    kinds = itertools.product(used, (True, False), (True, False))
    for name, is_write, is_bound in kinds:
        found = [
            use
            for use in used[name]
            if use.is_write is is_write and use.is_bound is is_bound
        ]
        if not found:
            continue
        size = sum(use.nbytes for use in found) / GB
        slow = sum(use.nbytes for use in found if use.is_slow) / GB
        lost = 1e3 * sum(use.lost for use in found) / size
        what = "written" if is_write else "read"
        waits = "arithmetic" if is_bound else "memory"
        rows.append((name, what, waits, size, lost, 100 * slow / size))
    return Table(
        "What kernels lose if a tensor is in Optane, simulated",
        (
            "network",
            "the tensor is",
            "the kernel waits for",
            "GB",
            "ms per GB",
            "in Optane as planned, percent",
        ),
        tuple(rows),
    )
