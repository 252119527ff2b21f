"""First touch: fast memory as long as there is some."""

import dataclasses

import pytest

from autotm_jax.simulate import all_fast, all_slow, first_touch, first_touched
from autotm_jax.solve import Tensor

from .problems import problem
from .two_memories import ROUND, chain, step


def test_what_does_not_fit_is_slow_for_life():
    found, kernels = chain([100, 200, 100])
    # 0 takes [0, 100); 1 does not fit beside it; 2 does, as 0 is free by then.
    assert first_touched(found, 250) == {1}
    outcome = first_touch(found, kernels, ROUND, 250)
    assert outcome.seconds == 200 / 100 + 200 / 50 + 200 / 20 + 200 / 10
    # It is made before what it is made of is freed.
    assert first_touched(found, 200) == {1}
    assert first_touched(found, 299) == {1}
    assert first_touched(found, 300) == set()


def test_free_bytes_in_two_places_hold_nothing():
    # 0 and 2 are freed, 1 between them stays: no range holds 3.
    found = problem(
        [
            Tensor(0, 50, (0, 1)),
            Tensor(1, 50, (0, 3)),
            Tensor(2, 50, (0, 1)),
            Tensor(3, 100, (2, 3)),
        ],
        4,
    )
    assert first_touched(found, 150) == {3}
    assert first_touched(found, 199) == {3}
    assert first_touched(found, 200) == set()


def test_values_too_small_to_decide_about_come_first():
    found, _ = chain([100, 100])
    found = dataclasses.replace(found, small=((40, 0, 1), (60, 1, 3)))
    assert first_touched(found, 259) == {1}
    assert first_touched(found, 260) == set()


@pytest.mark.parametrize("seed", range(30))
def test_with_all_memory_it_is_all_fast_and_with_none_all_slow(seed: int):
    found, kernels = step(seed)
    every = sum(tensor.nbytes for tensor in found.tensors)
    most = first_touch(found, kernels, ROUND, every)
    assert most.seconds == all_fast(found, kernels, ROUND).seconds
    none = first_touch(found, kernels, ROUND, 0)
    assert none.seconds == all_slow(found, kernels, ROUND).seconds
    for part in (0.2, 0.5, 0.8):
        some = first_touch(found, kernels, ROUND, int(part * every))
        assert some.fast_bytes <= part * every
        assert most.seconds - 1e-9 <= some.seconds <= none.seconds + 1e-9
        assert (some.out, some.into) == (0, 0)
