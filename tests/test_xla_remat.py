"""XLA's rematerialisation, simulated."""

import dataclasses

import pytest

from autotm_jax.simulate import xla_rematerialisation
from autotm_jax.solve import Schedule, largest_first, replay

from .problems import problem, random_problem
from .test_largest_first import TENSORS


def test_what_is_computed_again_takes_its_time():
    found = xla_rematerialisation(problem(TENSORS, 10, device_limit=5000))
    assert found.seconds == pytest.approx(15e-3) and found.note == ""
    assert found.fast_bytes == 5000  # at segments 1 and 8


def test_what_does_not_keep_the_limit_says_so():
    found = xla_rematerialisation(problem(TENSORS, 10, device_limit=3500))
    assert found.seconds == pytest.approx(15.1e-3)
    assert "over the limit of 3500" in found.note


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_it_takes_what_a_replay_says(seed: int):
    known = random_problem(seed)
    peak = replay(known, Schedule()).device_peak
    for share in (1.0, 0.8, 0.5):
        tight = dataclasses.replace(known, device_limit=share * peak)
        state = replay(known, largest_first(tight))
        outcome = xla_rematerialisation(tight)
        assert outcome.fast_bytes == state.device_peak <= peak
        assert bool(outcome.note) == (state.device_peak > tight.device_limit + 1)
