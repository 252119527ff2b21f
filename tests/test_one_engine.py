"""The time of copies of which there is only one at once."""

import pytest

from autotm_jax.solve import Fetch, Schedule, Store, Tensor, replay
from autotm_jax.solve.one_engine import one_engine

from .problems import KIB, LINK, problem


def test_one_engine_adds_both_directions():
    tensors = [Tensor(0, 50 * KIB, (0, 5)), Tensor(1, 40 * KIB, (0, 5))]
    known = problem(tensors, compute=[1e-3, 1e-3, 0.0, 1e-3, 3e-3, 1e-3])
    schedule = Schedule(
        (Store(0, 0, 2), Store(1, 0, 3, 2)), (Fetch(0, 3, 5), Fetch(1, 5, 5))
    )
    state = replay(known, schedule)
    beside, waits = one_engine(known, schedule, state)
    out, into = 50 * KIB / LINK.d2h, 50 * KIB / LINK.h2d
    assert beside == pytest.approx([0, out, 0, into / 4, 3 * into / 4, 0])
    alone = 40 * KIB / LINK.d2h + 40 * KIB / LINK.h2d
    assert waits == pytest.approx(alone + 4 * LINK.latency)
