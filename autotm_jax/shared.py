"""One plan for all processes of a step that runs on the devices of several.

Every process traces the same step and would find the same plan, if it were not for the
clock: a search that ends with its time may end elsewhere on another host. So the first
process searches, and the others are told what it found. What they make of it is
compared before the step runs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from . import compat
from .candidate import Candidate
from .devices import devices_of
from .errors import AutoTMError
from .found import Found, read_found, written
from .machine import Machine
from .plan import Plan


_MIB = 2**20

# Of an error on the first process, the others are told so many characters.
_MOST_TEXT = 300

# What differs from process to process in the text of a jaxpr.
_ADDRESS = re.compile(r"0x[0-9a-f]+")


def spans_processes(args: Any, kwargs: Any, options: Mapping[str, Any]) -> bool:
    """Whether a step runs on devices of more than this process.

    **Arguments:**

    - `args`, `kwargs`: of a call.
    - `options`: what was given to `jax.jit`.
    """
    # Those that are not here belong to nobody.
    devices = devices_of(args, kwargs, options).intersection(jax.devices())
    return len({d.process_index for d in devices}) > 1


class SharedCandidate(Candidate):
    """A candidate whose searches the first process makes for all.

    Every process has to ask for the same, in the same order.

    **Arguments:** those of a `Candidate`.
    """

    _is_asked = False
    _agreed_least: Found | None = None

    def within(self, limit: int, slack: int = 0, gap: float = 0.0) -> Found | None:
        """As `Candidate.within`."""
        return self._of_first(functools.partial(super().within, limit, slack, gap))

    def nearby(self, found: Found, limit: int) -> Found | None:
        """As `Candidate.nearby`."""
        return self._of_first(functools.partial(super().nearby, found, limit))

    def may_beat(self, seconds: float, limit: int) -> bool:
        """As `Candidate.may_beat`."""
        mine = functools.partial(super().may_beat, seconds, limit)
        return mine() if self._is_asked else self._entry_of_first(mine)

    def nearly_packs(self, found: Found, limit: int) -> bool:
        """As `Candidate.nearly_packs`."""
        mine = functools.partial(super().nearly_packs, found, limit)
        return mine() if self._is_asked else self._entry_of_first(mine)

    def parts(self, limit: int) -> dict[int, int]:
        """As `Candidate.parts`."""
        if self._is_asked:
            return super().parts(limit)
        mine = functools.partial(super().parts, limit)
        entry = self._entry_of_first(lambda: {str(k): v for k, v in mine().items()})
        return {int(k): v for k, v in entry.items()}

    @functools.cached_property
    def _own_least(self) -> Found:
        return Candidate.least.func(self)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def least(self) -> Found:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As `Candidate.least`."""
        if self._is_asked:
            return self._own_least
        if self._agreed_least is None:
            self._agreed_least = self._of_first(lambda: self._own_least)
            assert self._agreed_least is not None
        return self._agreed_least

    def _of_first(self, search: Callable[[], Found | None]) -> Found | None:
        if self._is_asked:  # by a search of this process
            return search()

        def entry() -> Any:
            found = search()
            return None if found is None else written(found)

        return read_found(self._entry_of_first(entry))

    def _entry_of_first(self, search: Callable[[], Any]) -> Any:
        said: dict[str, Any] = {}
        if jax.process_index() == 0:
            self._is_asked = True
            try:
                said = {"found": search()}
            except Exception as error:  # noqa: BLE001 - the others are waiting
                said = {"error": f"{type(error).__name__}: {error}"[:_MOST_TEXT]}
            finally:
                self._is_asked = False
        said = _told(said)
        if "error" in said:
            raise RuntimeError(f"the first process could not plan ({said['error']})")
        return said["found"]


def _told(said: Any) -> Any:
    """What the first process says, on all of them."""
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    mine = text if jax.process_index() == 0 else np.zeros(size, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(mine))))


def with_least_memory(machine: Machine) -> Machine:
    """The machine of this process with the memory that every process has.

    **Arguments:**

    - `machine`: that of this process.
    """
    here = np.array([machine.device_bytes // _MIB, machine.host_bytes // _MIB])
    every = np.asarray(multihost_utils.process_allgather(here.astype(np.int32)))
    device, host = (int(n) * _MIB for n in every.min(axis=0))
    return dataclasses.replace(machine, device_bytes=device, host_bytes=host)


def check_same_step(closed: Any, request: Any) -> None:
    """Compares what all processes are about to plan.

    **Arguments:**

    - `closed`: the closed jaxpr of the step.
    - `request`: what the user asked for, of machines with the same memory.

    **Raises:**

    - `AutoTMError`: on every process, if one of them is about to plan something else.
    """
    versions = compat.JAX_VERSION, compat.JAXLIB_VERSION
    _check_same(_ADDRESS.sub("", str(closed)), repr(request), versions)


def check_same_plan(plan: Plan) -> None:
    """Compares the plans of all processes.

    **Arguments:**

    - `plan`: that of this process.

    **Raises:**

    - `AutoTMError`: on every process, if one of them has another plan.
    """
    signature = () if plan.program is None else plan.program.signature
    _check_same(plan.status, plan.schedule, signature)


def _check_same(*said: Any) -> None:
    digest = np.frombuffer(hashlib.sha256(repr(said).encode()).digest(), np.uint8)
    every = np.asarray(multihost_utils.process_allgather(digest))
    others = [n for n, each in enumerate(every) if bytes(each) != bytes(every[0])]
    if others:
        numbers = ", ".join(map(str, others))
        raise AutoTMError(
            f"Process {numbers} would run this step by another plan than process 0. "
            "All processes have to call it with the same shapes and shardings, the "
            "same budget and options, and the same versions of JAX and autotm_jax."
        )
