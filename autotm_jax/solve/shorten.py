"""A plan whose copies take no more of the step than hides them.

Where memory is not tight a program does not mind how early a fetch begins: it has a
place waiting for it in any case. But the longer windows are, the more buffers there are
to be packed, and the less XLA's scheduler, which starts a copy as late as it believes
in, does what was planned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from .ledger import Ledger
from .problem import Problem, Tensor
from .schedule import Fetch, Schedule, Store


# Compute beside a copy, as multiples of what it takes alone, from the first one that
# costs nothing.
_STRETCHES = (1.5, 2.0, 3.0, 5.0)

# A plan may become slower by this fraction, all its copies together: nothing.
_FREE = 1e-6


def shorten(problem: Problem, schedule: Schedule) -> Schedule:
    """The same plan with shorter windows for its copies where that costs no time.

    **Arguments:**

    - `problem`, `schedule`: a schedule that passes the checker.

    **Returns:**

    A `Schedule` that passes it, too, with the same copies.
    """
    ledger = Ledger(problem, schedule)
    allowed = ledger.seconds() * (1 + _FREE)
    excess = ledger.excess()
    for index, tensor in enumerate(problem.tensors):
        # What one iteration does for another takes an iteration.
        if tensor.crossing is not None or tensor.carried is not None:
            continue
        copies = (*ledger.choices[index].fetches, *ledger.choices[index].stores)
        for copy in copies:
            before = ledger.choices[index]
            for shorter in _shorter(ledger, tensor, copy):
                ledger.change({index: before.with_copy(copy, shorter)})
                if ledger.seconds() <= allowed and ledger.excess() <= excess:
                    break
                ledger.change({index: before})
    return ledger.schedule()


def _shorter(
    ledger: Ledger, tensor: Tensor, copy: Fetch | Store
) -> Iterator[Fetch | Store]:
    clock, link = ledger.clock, ledger.problem.link
    first, end = copy.window
    for stretch in _STRETCHES:
        nbytes = stretch * tensor.times * tensor.nbytes
        if isinstance(copy, Fetch):
            goal = clock[end] - nbytes / link.h2d
            start = int(np.searchsorted(clock, goal, side="right")) - 1
            if first < start < end and tensor.is_open(start):
                yield dataclasses.replace(copy, start=start)
        else:
            goal = clock[first] + nbytes / link.d2h
            done = int(np.searchsorted(clock, goal))
            if first < done < end and tensor.is_open(done):
                yield dataclasses.replace(copy, done=done)
