import pytest

from autotm_jax.solve import (
    Fetch,
    Schedule,
    Store,
    Tensor,
    offload_everything,
    replay,
)

from .problems import problem, random_problem


def test_a_tensor_leaves_after_each_use_and_comes_back_before_the_next():
    tensors = [
        Tensor(0, 10, (0, 4, 8)),
        Tensor(1, 10, (1, 3)),
        Tensor(2, 10, (0, 8), movable=False),
    ]
    schedule = offload_everything(problem(tensors, 9))
    assert schedule == Schedule((Store(0, 0, 2),), (Fetch(0, 3, 4), Fetch(0, 7, 8)))


@pytest.mark.parametrize("seed", range(0, 100, 4))
def test_it_is_sound(seed: int):
    free = random_problem(seed)
    state = replay(free, offload_everything(free))
    assert state.faults == ()
    assert state.device_peak <= replay(free, Schedule()).device_peak
