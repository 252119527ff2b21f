import dataclasses

import pytest

from autotm_jax.simulate import oracle
from autotm_jax.solve import Schedule, Tensor, Variant, replay

from .problems import problem, tiny_problem


def test_by_hand():
    lean = Variant("lean", 3e-3, 100)
    fast = Variant("fast", 0.25e-3, 700)
    slow = Variant("slow", 2e-3, 0)
    known = problem(
        [Tensor(0, 1000, (0, 3))],
        4,
        workspace=[10, 500, 10, 10],
        variants={1: (lean, fast), 2: (slow,)},
        device_limit=10,
    )
    outcome = oracle(known)
    assert outcome.seconds == pytest.approx(3.25e-3)
    assert outcome.fast_bytes == 1700
    assert (outcome.out, outcome.into) == (0, 0)
    assert "over the limit of 10" in outcome.note


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_faster(seed: int):
    known = tiny_problem(seed)
    outcome = oracle(known)
    assert outcome.seconds == pytest.approx(known.fastest())
    assert outcome.seconds <= replay(known, Schedule()).makespan * (1 + 1e-12)
    # Memory plays no part.
    tight = dataclasses.replace(known, device_limit=1)
    assert oracle(tight).seconds == outcome.seconds
