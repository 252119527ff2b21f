"""Steps timed in turns, so that whatever drifts drifts for all of them.

In each round every program gets a state from the same seed, runs two steps to warm up
and then those that count, and lets the state go before the next one's turn. The losses
of the first round are kept: all programs have seen the same inputs then.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from .reasons import reason_of


SEED = 0
ROUNDS = 3
WARM_UP = 2

# Counted steps of a round: as many as fill so many seconds, within limits.
_ROUND_SECONDS = 1.0
_FEWEST, _MOST = 3, 10


@dataclasses.dataclass
class Timed:
    """What was seen of one program.

    - `samples`: seconds of the steps that count.
    - `losses`: of the first round, those that warm up among them.
    - `error`: why there is no more.
    """

    samples: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    error: str = ""


def interleaved(
    programs: Mapping[str, Callable[..., Any]],
    make: Callable[[int], tuple[Any, ...]],
    rounds: int = ROUNDS,
    left: Callable[[], float] = lambda: float("inf"),
    seen: Callable[[str, Timed], None] = lambda name, timed: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timed]:
    """Times programs in turns.

    **Arguments:**

    - `programs`: steps of a state and a batch, by name. One that fails has no more
        turns.
    - `make`: makes a state and a batch from a seed.
    - `rounds`: how many turns each of them has.
    - `left`: seconds until it has to end. No round but the first begins if the one
        before took longer.
    - `seen`: is told what is known of a program after each of its turns.
    - `clock`: seconds, from any origin.

    **Returns:**

    What was seen, by name.
    """
    found = {name: Timed() for name in programs}
    last = 0.0
    for number in range(rounds):
        if number and left() < last:
            break
        begun = time.monotonic()
        for name, step in programs.items():
            timed = found[name]
            if timed.error:
                continue
            try:
                _turn(timed, step, make, number == 0, clock)
            except Exception as error:  # noqa: BLE001 - it is that program's own
                timed.error = reason_of(error)
            seen(name, timed)
        last = time.monotonic() - begun
    return found


def _turn(
    timed: Timed,
    step: Callable[..., Any],
    make: Callable[[int], tuple[Any, ...]],
    is_first: bool,
    clock: Callable[[], float],
) -> None:
    state, batch = make(SEED)
    seconds: list[float] = []
    count = WARM_UP + _FEWEST
    while len(seconds) < count:
        start = clock()
        state, loss = step(state, batch)
        jax.block_until_ready((state, loss))
        seconds.append(clock() - start)
        if is_first:
            timed.losses.append(float(loss))
        if len(seconds) == WARM_UP:  # the last one to warm up says how long one takes
            fill = round(_ROUND_SECONDS / max(seconds[-1], 1e-9))
            count = WARM_UP + min(max(fill, _FEWEST), _MOST)
    timed.samples.extend(seconds[WARM_UP:])
