"""What is known about one workload run in one way."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """What is known about one workload run in one way; `None` where nothing is.

    - `case`, `batch`, `way`: which.
    - `budget_bytes`: what `autotm.jit` was given.
    - `status`: how the plan was found; empty where there is none.
    - `device_bytes`, `host_bytes`: of the executable, as compiled.
    - `predicted_bytes`: of device memory, by the plan.
    - `modelled_seconds`: of the step: the plan's, or a roofline's for what is not
        planned. `modelled_by` says from which figures.
    - `unconstrained_seconds`: the plan's, without a limit.
    - `simulated_seconds`: of the plan, played event by event.
    - `plan_seconds`, `compile_seconds`: wall-clock time.
    - `samples`: measured seconds of the counted steps.
    - `plain_seconds`: the median of plain `jax.jit`, measured between these.
    - `losses`: of the first steps.
    - `plain_losses`: those of plain `jax.jit`.
    - `peak_bytes_in_use`: the allocator's, of a process that ran nothing else.
    - `kernel_seconds`, `copy_seconds`, `stall_seconds`, `idle_seconds`: of a step, from
        a profile: in kernels, in copies to and from the host, in such copies with no
        kernel beside them, and in neither.
    - `notes`: warnings, and what could not be had.
    - `error`: why there is nothing, or nothing measured; empty if all went well.
    """

    case: str
    batch: int
    way: str
    budget_bytes: int | None = None
    status: str = ""
    device_bytes: int | None = None
    host_bytes: int | None = None
    predicted_bytes: int | None = None
    modelled_seconds: float | None = None
    modelled_by: str = ""
    unconstrained_seconds: float | None = None
    simulated_seconds: float | None = None
    plan_seconds: float | None = None
    compile_seconds: float | None = None
    samples: tuple[float, ...] = ()
    plain_seconds: float | None = None
    losses: tuple[float, ...] = ()
    plain_losses: tuple[float, ...] = ()
    peak_bytes_in_use: int | None = None
    kernel_seconds: float | None = None
    copy_seconds: float | None = None
    stall_seconds: float | None = None
    idle_seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        """What no two rows share."""
        return self.case, self.batch, self.way

    @property
    def seconds(self) -> float | None:
        """The median of the measured steps."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def spread(self) -> float | None:
        """Their median absolute deviation, relative to the median."""
        if self.seconds is None:
            return None
        middle = self.seconds
        return statistics.median(abs(s - middle) for s in self.samples) / middle

    @property
    def of_plain(self) -> float | None:
        """Measured seconds over those of plain `jax.jit` in the same process."""
        return _ratio(self.seconds, self.plain_seconds)

    @property
    def model_error(self) -> float | None:
        """How far modelled seconds are above measured ones, as a fraction of these."""
        return _excess(self.modelled_seconds, self.seconds)

    @property
    def simulator_error(self) -> float | None:
        """How far simulated seconds are above measured ones."""
        return _excess(self.simulated_seconds, self.seconds)

    @property
    def bytes_error(self) -> float | None:
        """How far the allocator's peak is above the predicted bytes."""
        return _excess(self.peak_bytes_in_use, self.predicted_bytes)

    @property
    def loss_difference(self) -> float | None:
        """The largest relative difference to the losses of plain `jax.jit`."""
        pairs = list(zip(self.losses, self.plain_losses, strict=False))
        if not pairs:
            return None
        return max(abs(a - b) / max(abs(b), 1e-30) for a, b in pairs)


def of_json(found: dict[str, Any]) -> Row:
    """A row as it was written; what is not known of a row is left out."""
    known = {field.name for field in dataclasses.fields(Row)}
    read: dict[str, Any] = {k: v for k, v in found.items() if k in known}
    for name, value in read.items():
        if isinstance(value, list):
            read[name] = tuple(value)
    return Row(**read)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _excess(found: float | None, true: float | None) -> float | None:
    ratio = _ratio(found, true)
    return None if ratio is None else ratio - 1
