"""XLA's rematerialisation, simulated."""

import dataclasses

import pytest

from autotm_jax.simulate import rematerialised, xla_rematerialisation
from autotm_jax.solve import Recipe, Recompute, Schedule, Tensor, replay

from .problems import problem, random_problem


# Value 1 is large and slow to make, value 2 small and fast; both from value 0.
TENSORS = [
    Tensor(0, 1000, (0, 1, 2, 9), optional=(7, 8)),
    Tensor(1, 4000, (1, 8), recipe=Recipe({8: 5e-3}, 0, (0,))),
    Tensor(2, 3000, (2, 7), recipe=Recipe({7: 0.1e-3}, 0, (0,))),
]


def test_it_takes_what_frees_most_whatever_that_costs():
    known = problem(TENSORS, 10, device_limit=5000)
    # At segment 2 the three take 8,000 bytes, and without value 1 4,000.
    assert rematerialised(known).recomputes == (Recompute(1, 8),)
    found = xla_rematerialisation(known)
    assert found.seconds == pytest.approx(15e-3) and found.note == ""
    assert found.fast_bytes == 5000  # at segments 1 and 8


def test_it_goes_on_where_it_cannot_keep_the_limit():
    known = problem(TENSORS, 10, device_limit=3500)
    found = xla_rematerialisation(known)
    assert found.seconds == pytest.approx(15.1e-3)
    assert "over the limit of 3500" in found.note


@pytest.mark.parametrize("seed", range(40))
def test_it_breaks_no_rule_but_the_limit(seed: int):
    known = random_problem(seed)
    peak = replay(known, Schedule()).device_peak
    assert rematerialised(dataclasses.replace(known, device_limit=peak)) == Schedule()
    for share in (0.8, 0.5):
        tight = dataclasses.replace(known, device_limit=share * peak)
        schedule = rematerialised(tight)
        free = dataclasses.replace(known, device_limit=float("inf"))
        state = replay(free, schedule)
        assert not state.faults and not schedule.moved
        outcome = xla_rematerialisation(tight)
        assert outcome.fast_bytes == state.device_peak <= peak
        assert bool(outcome.note) == (state.device_peak > tight.device_limit + 1)
