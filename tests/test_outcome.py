"""What a way to place a step's values comes to."""

import dataclasses

import pytest

from autotm_jax.simulate import Outcome


def test_what_is_not_told_moves_nothing_and_finds_everything():
    found = Outcome("a way", 1.5)
    assert (found.out, found.into, found.fast_bytes) == (0, 0, 0)
    assert (found.fast_read, found.note) == (1.0, "")


def test_outcomes_are_values():
    assert Outcome("a way", 1.5) == Outcome("a way", 1.5) != Outcome("other", 1.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outcome("a way", 1.5).seconds = 1.0  # pyright: ignore
