"""The largest batch at which a step fits.

Bytes are nearly affine in the batch. So the next batch to try is where the line through
two of them meets the limit. Near the limit XLA computes again what it can, and they are
not: where the line says nothing, the middle is tried, between the largest that fits and
the smallest that does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import autotm_jax as autotm

from .cases import Case
from .prepared import Known, Prepared, prepare
from .reasons import is_out_of_memory, reason_of
from .ways import LEAST, Way


TRIES, FEW_TRIES = 6, 2
"""How many batches are tried at most: usually, and of small workloads."""


# Part of the slope over all at which the line through two says little.
_BENT = 0.5


def largest(
    nbytes: Callable[[int], int | None],
    base: int,
    limit: int,
    step: int = 1,
    tries: int = TRIES,
    known: Mapping[int, int] | None = None,
    left: Callable[[], float] = lambda: float("inf"),
) -> tuple[int | None, dict[int, int | None]]:
    """Looks for the largest batch that fits.

    **Arguments:**

    - `nbytes`: the device bytes of a batch; `None` if it takes more than there is.
    - `base`: the batch to begin with, a multiple of `step`.
    - `limit`: device bytes.
    - `step`: by how much batches differ.
    - `tries`: how many batches are tried at most.
    - `known`: bytes that are known already; those of no batch at all are what does not
        depend on it.
    - `left`: seconds until it has to end. No try begins if the last one took longer.

    **Returns:**

    The largest multiple of `step` that was seen to fit, `None` if none was; and the
    bytes of all that are known.
    """
    tried: dict[int, int | None] = dict(known or {})
    last = 0.0
    for _ in range(tries):
        if left() < last:
            break
        fits = [b for b, n in tried.items() if n is not None and n <= limit]
        over = [b for b in tried if b not in fits]
        low, high = max(fits, default=0), min(over, default=None)
        if high is not None and high - low <= step:
            break
        batch = _next(tried, low, high, limit, step) if base in tried else base
        begun = time.monotonic()
        tried[batch] = nbytes(batch)
        last = time.monotonic() - begun
    tried.pop(0, None)
    return max((b for b, n in tried.items() if n and n <= limit), default=None), tried


def _next(
    tried: dict[int, int | None], low: int, high: int | None, limit: int, step: int
) -> int:
    known = sorted((b, n) for b, n in tried.items() if n is not None)
    if high is not None and tried[high] is None:
        guess = (low + high) // 2
    elif len(known) < 2:
        guess = 2 * low if high is None else high // 2
    else:
        near = sorted(known, key=lambda one: abs(one[1] - limit))[:2]
        (b0, n0), (b1, n1) = sorted(near)
        slope = (n1 - n0) / (b1 - b0)
        guess = int(b1 + (limit - n1) / slope) if slope > 0 else 2 * b1
        (first, least), (last, most) = known[0], known[-1]
        if slope < _BENT * (most - least) / (last - first):
            guess = min(guess, 2 * low)
    guess = max(guess // step * step, low + step)
    if high is not None and guess >= high:  # XLA has begun to compute things again
        guess = max((low + high) // 2 // step * step, low + step)
    return guess


def fitting(
    case: Case, way: Way, target: autotm.Target, limit: int
) -> tuple[int, Prepared | None]:
    """The batch of a case, halved until a way to run it fits.

    **Arguments:**

    - `case`, `way`: which.
    - `target`, `limit`: what to compile for, and device bytes.

    **Returns:**

    A batch, 1 if nothing fits, and the step at that batch; `None` for one that did not
    even compile.
    """
    batch = case.batch
    while True:
        found = _tried(case, batch, way, target, limit)
        nbytes = None if found is None else found.row.device_bytes
        if batch == 1 or (nbytes is not None and nbytes <= limit):
            return batch, found
        batch //= 2


def bytes_of(
    case: Case, way: Way, target: autotm.Target, limit: int
) -> Callable[[int], int | None]:
    """The device bytes of a way to run a step, by the batch.

    Those of the executable; of `autotm.jit`, the least that it predicts: what it can do
    with is no matter of the limit that it is given.

    **Arguments:**

    - `case`, `way`: which.
    - `target`, `limit`: what to compile for, and device bytes.

    **Returns:**

    A function of the batch. `None` stands for more than there is.
    """

    def compiled(batch: int) -> int | None:
        found = _tried(case, batch, way, target, limit)
        return None if found is None else found.row.device_bytes

    def predicted(batch: int) -> int | None:
        workload = case.workload(batch)
        plan = autotm.jit(
            workload.step,
            budget=LEAST,
            target=target,
            measure=False,
            formulation=way.detail,
            donate_argnums=workload.donate_argnums,
        ).plan(*workload.args)
        return plan.device_bytes

    return predicted if way.kind == "autotm" else compiled


def _tried(
    case: Case, batch: int, way: Way, target: autotm.Target, limit: int
) -> Prepared | None:
    try:
        return prepare(case, batch, way, target, Known(None, None, limit))
    except Exception as error:
        if is_out_of_memory(reason_of(error)):
            return None
        raise
