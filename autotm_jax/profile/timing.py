"""How a time is taken: warm-up, rotating inputs, a median, and when to stop.

One sample is the mean of as many calls in a row as fill `Protocol.sample_seconds`,
waited for once at the end, so that neither the clock's resolution nor the wait counts.
Calls rotate over several sets of inputs, so that a cache is not what is measured.
Sampling stops when the median is known to `Protocol.precision`, or when the samples or
the seconds that are allowed are used up.

A sample farther from the median than `Protocol.outlier` times the median absolute
deviation is an outlier: it is counted and left out. A sample in which the clock stood
still or ran backwards is no sample.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The rules of a measurement.

    - `warm_up`: calls after the very first one and before the first sample.
    - `sample_seconds`: how long one sample should last, in seconds.
    - `fewest`, `most`: samples, if time allows.
    - `precision`: half width of the median's confidence interval (two standard
        errors), relative to the median, that is small enough.
    - `time_limit`: seconds after which no sample but the first is begun.
    - `outlier`: in median absolute deviations.
    """

    warm_up: int = 2
    sample_seconds: float = 2e-3
    fewest: int = 7
    most: int = 60
    precision: float = 0.02
    time_limit: float = 2.0
    outlier: float = 5.0


@dataclasses.dataclass(frozen=True)
class Timing:
    """What was measured.

    - `seconds`: the median, in seconds per call.
    - `spread`: the median absolute deviation, relative to the median.
    - `samples`, `outliers`: how many were kept, and how many left out.
    - `calls`: calls per sample.
    """

    seconds: float
    spread: float
    samples: int
    outliers: int
    calls: int


class ClockError(RuntimeError):
    """The clock did not advance often enough to take a time."""


def measure(
    run: Callable[..., Any],
    inputs: Sequence[Sequence[Any]],
    protocol: Protocol | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Times a function that starts work on a device.

    **Arguments:**

    - `run`: a function of one set of inputs, such as a compiled program. Its result is
        waited for.
    - `inputs`: the sets of inputs to rotate over; at least one.
    - `protocol`: the rules.
    - `clock`: seconds, from any origin.

    **Returns:**

    A `Timing`.

    **Raises:**

    - `ClockError`: if the clock stood still or ran backwards in most samples.
    """
    rules = Protocol() if protocol is None else protocol

    def sample(calls: int) -> float:
        begun = clock()
        for i in range(calls):
            result = run(*inputs[i % len(inputs)])
        jax.block_until_ready(result)
        return (clock() - begun) / calls

    end = time.monotonic() + rules.time_limit
    once = sample(1)
    for _ in range(rules.warm_up):
        if time.monotonic() < end:
            once = sample(1)
    calls = math.ceil(rules.sample_seconds / once) if once > 0 else len(inputs)
    calls = min(max(1, calls), 1000)
    samples: list[float] = []
    broken = 0
    while len(samples) < rules.most:
        if samples and time.monotonic() >= end:
            break
        if len(samples) >= rules.fewest and _error(samples) < rules.precision:
            break
        seconds = sample(calls)
        if seconds > 0 and math.isfinite(seconds):
            samples.append(seconds)
            continue
        broken += 1
        if broken > rules.most // 2:
            raise ClockError(
                f"The clock did not advance in {broken} samples, so no time was taken."
            )
    kept = _without_outliers(samples, rules.outlier)
    median = statistics.median(kept)
    spread = _deviation(kept, median) / median
    return Timing(median, spread, len(kept), len(samples) - len(kept), calls)


def _deviation(samples: Sequence[float], median: float) -> float:
    return statistics.median(abs(s - median) for s in samples)


def _without_outliers(samples: Sequence[float], width: float) -> list[float]:
    median = statistics.median(samples)
    # Samples that agree to a thousandth are as good as equal.
    allowed = width * max(_deviation(samples, median), 1e-3 * median)
    return [s for s in samples if abs(s - median) <= allowed]


def _error(samples: Sequence[float]) -> float:
    # Of a normal distribution: its deviation is 1.4826 MAD, and the standard error of
    # its median 1.2533 deviations / sqrt(n).
    median = statistics.median(samples)
    scatter = 1.4826 * _deviation(samples, median)
    return 2 * 1.2533 * scatter / math.sqrt(len(samples)) / median
