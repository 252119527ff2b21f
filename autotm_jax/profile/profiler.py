"""Timing every kind of segment of a program, with a cache and a progress bar.

Structurally equal fragments are timed once. What has been timed is stored at once, so
that an interrupted run goes on where it stopped, and two processes share their work:
one measures while the other waits, and then finds the entry.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from .. import compat
from ..config import hides_progress
from ..trace import LOCAL, Fragment, Program
from . import cache
from .alone import CANNOT_RUN, RETURNED_NAN, Measurement, measure_alone
from .configurations import ON_DEVICE, Configuration, configurations
from .timing import Timing, measure


# Part of every cache key: raise it when a fragment is run or timed differently.
_HARNESS = 3

# A fragment that takes no longer than this many calls of an empty program is lost in
# the time of the call itself.
_LOST = 2.0

# How many IO configurations of one fragment are timed.
MOST_CONFIGURATIONS = 16


@dataclasses.dataclass(frozen=True)
class Task:
    """One fragment to time in one IO configuration."""

    fragment: Fragment
    configuration: Configuration = ON_DEVICE


@dataclasses.dataclass(frozen=True)
class Profile:
    """What was timed of a program.

    - `device`: where.
    - `call_seconds`: seconds that a call of an empty program takes.
    - `measurements`: by fragment signature and IO configuration.
    - `now`, `cached`: how many were measured in this run and known before.
    - `pruned`: IO configurations beyond the cap, by fragment signature.
    """

    device: str
    call_seconds: float
    measurements: dict[tuple[str, Configuration], Measurement]
    now: int
    cached: int
    pruned: dict[str, int] = dataclasses.field(default_factory=dict)

    def seconds(self, fragment: Fragment) -> float | None:
        """Seconds of a fragment with everything on the device.

        `None` if it could not be measured, or is too short for one call to tell.
        """
        found = self.measurements.get((fragment.signature, ON_DEVICE))
        if found is None or found.timing is None:
            return None
        seconds = found.timing.seconds
        if self._is_lost(found):
            return None
        # A CPU runs a program while its caller waits; a GPU while it calls the next.
        is_serial = self.device.startswith("cpu")
        return seconds - self.call_seconds if is_serial else seconds

    def added(self, fragment: Fragment, configuration: Configuration) -> float | None:
        """Seconds that an IO configuration takes longer than all on the device.

        `None` if it was not measured.
        """
        here = self.measurements.get((fragment.signature, ON_DEVICE))
        there = self.measurements.get((fragment.signature, configuration))
        timings = [None if m is None else m.timing for m in (here, there)]
        if timings[0] is None or timings[1] is None:
            return None
        return max(0.0, timings[1].seconds - timings[0].seconds)

    def cannot_run(self, fragment: Fragment) -> str | None:
        """Why the device does not run a fragment; `None` if it does, as far as seen."""
        found = self.measurements.get((fragment.signature, ON_DEVICE))
        failure = "" if found is None else found.failure or ""
        return failure if failure.startswith(CANNOT_RUN) else None

    def _is_lost(self, found: Measurement) -> bool:
        seconds = 0.0 if found.timing is None else found.timing.seconds
        return seconds < _LOST * self.call_seconds

    def failures(self) -> dict[str, int]:
        """Why measurements failed, and how often each."""
        out: dict[str, int] = {}
        for found in self.measurements.values():
            if found.failure is not None:
                out[found.failure] = out.get(found.failure, 0) + 1
        return out

    def __str__(self) -> str:
        on_device = [m for (_, c), m in self.measurements.items() if c == ON_DEVICE]
        done = sum(m.timing is not None for m in self.measurements.values())
        kinds = len({signature for signature, _ in self.measurements})
        rows = [
            f"{kinds} kinds of segment on {self.device}: {done} of "
            f"{len(self.measurements)} IO configurations timed "
            f"({self.now} now, {self.cached} cached)",
            f"an empty call takes {self.call_seconds * 1e6:.1f} us",
        ]
        if any(self.pruned.values()):
            rows.append(
                f"{sum(self.pruned.values())} more configurations of "
                f"{sum(n > 0 for n in self.pruned.values())} kinds are beyond the cap "
                f"of {MOST_CONFIGURATIONS} and were not timed"
            )
        lost = sum(m.timing is not None and self._is_lost(m) for m in on_device)
        if lost:
            rows.append(f"too short to be told from a call: {lost} kinds")
        for failure, count in sorted(self.failures().items()):
            rows.append(f"{count} not timed: {failure}")
        rows.append("what has no time of its own is priced by the scaled roofline")
        return "\n".join(rows)


def profile(
    program: Program,
    fragments: Iterable[Fragment],
    *,
    all_configurations: bool = False,
    progress: bool | None = None,
    time_limit: float = math.inf,
) -> Profile:
    """Times fragments on the default device.

    **Arguments:**

    - `program`: what the fragments belong to.
    - `fragments`: what to time; structurally equal ones are timed once.
    - `all_configurations`: time every admissible IO configuration, up to a cap, and
        not only the one with everything on the device.
    - `progress`: show a progress bar; by default where standard error is a terminal.
    - `time_limit`: seconds after which nothing more is measured; what is left then is
        among the failures.

    **Returns:**

    A `Profile`. Interrupting it loses nothing that has been measured.
    """
    kinds = {f.signature: f for f in fragments}
    tasks: list[Task] = []
    pruned: dict[str, int] = {}
    for signature, fragment in kinds.items():
        if not all_configurations:
            tasks.append(Task(fragment))
            continue
        found = configurations(program, fragment, MOST_CONFIGURATIONS)
        pruned[signature] = found.pruned
        tasks += [Task(fragment, c) for c in found.kept]
    measurements: dict[tuple[str, Configuration], Measurement] = {}
    missing: list[Task] = []
    for task in tasks:
        known = _load(task)
        if known is None:
            missing.append(task)
        else:
            measurements[task.fragment.signature, task.configuration] = known
    known = len(measurements)
    for task, found in _measure_all(program, missing, known, progress, time_limit):
        measurements[task.fragment.signature, task.configuration] = found
    return Profile(
        device_name(),
        _call_seconds(),
        measurements,
        len(missing),
        len(tasks) - len(missing),
        pruned,
    )


def _measure_all(
    program: Program,
    tasks: Sequence[Task],
    known: int,
    progress: bool | None,
    time_limit: float,
) -> Iterator[tuple[Task, Measurement]]:
    hidden = hides_progress(progress)
    label = f"timing segments ({known} cached)"
    if not tasks:
        return
    end = time.monotonic() + time_limit
    for task in tqdm(tasks, label, disable=hidden, unit="", leave=False):
        if time.monotonic() > end:
            yield task, Measurement(None, "there was no time left")
            continue
        with cache.alone(device_name()):
            found = _load(task)
            if found is None:
                found = measure_alone(program, task.fragment, task.configuration)
                _store(task, found)
        yield task, found


def _key(task: Task) -> str:
    return stored_here(task.fragment.signature, task.configuration, _HARNESS)


def _load(task: Task) -> Measurement | None:
    if task.fragment.signature.startswith(LOCAL):
        return None
    entry: Any = cache.load("time", _key(task))
    try:
        timing = entry["timing"]
        failure = entry["failure"]
        return Measurement(None if timing is None else Timing(**timing), failure)
    except (TypeError, KeyError):
        return None


def _store(task: Task, found: Measurement) -> None:
    # What failed for another reason may not fail the next time.
    lasts = found.failure in (None, RETURNED_NAN)
    if lasts and not task.fragment.signature.startswith(LOCAL):
        cache.store("time", _key(task), dataclasses.asdict(found))


@functools.cache
def device_name() -> str:
    """A name of the default device under which times may be kept."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    return f"cpu {_cpu_model()} x {cores}"


def stored_here(*parts: object) -> str:
    """A cache key for what was measured of this host's device by this JAX."""
    flags = os.environ.get("XLA_FLAGS", "")
    versions = (compat.JAX_VERSION, compat.JAXLIB_VERSION)
    return cache.cache_key(platform.node(), device_name(), flags, *versions, *parts)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return next(names, platform.machine())


@functools.cache
def _call_seconds() -> float:
    # Kept, since plans are made with it: the same times give the same plan.
    key = stored_here("call", _HARNESS)
    known = cache.load("machine", key)
    if isinstance(known, float) and known > 0:
        return known
    scalar: Any = jax.device_put(np.zeros((), np.float32))
    compiled = jax.jit(lambda x: x + 1).lower(scalar).compile()
    with cache.alone(device_name()):
        seconds = measure(compiled, [(scalar,)]).seconds
    cache.store("machine", key, seconds)
    return seconds
