"""Memory that is handed out in ranges."""

import random

import pytest

from autotm_jax.simulate import Pool
from autotm_jax.simulate.pool import addresses
from autotm_jax.solve import Tensor

from .problems import problem


def test_the_example_of_its_documentation():
    pool = Pool(100)
    assert pool.take(60) == 0
    assert pool.take(60) is None
    pool.give(0)
    assert pool.take(100) == 0


def _with_holes(best_fit: bool) -> Pool:
    # Free: [0, 30), [50, 60), and [70, 100).
    pool = Pool(100, best_fit)
    for nbytes in (30, 20, 10, 10):
        pool.take(nbytes)
    pool.give(0)
    pool.give(50)
    return pool


def test_the_best_fit_is_the_smallest_range():
    assert _with_holes(best_fit=True).take(8) == 50


def test_the_first_fit_is_the_lowest_range():
    assert _with_holes(best_fit=False).take(8) == 0


def test_free_ranges_join():
    pool = _with_holes(best_fit=True)
    pool.give(60)  # [50, 100) is free
    assert pool.take(50) == 50
    pool.give(30)  # [0, 50) is free
    assert pool.take(51) is None
    assert pool.take(50) == 0
    assert pool.used == 100


@pytest.mark.parametrize("best_fit", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_ranges_never_overlap_and_all_comes_back(seed: int, best_fit: bool):
    draw, pool = random.Random(seed), Pool(1000, best_fit)
    taken: dict[int, int] = {}
    for _ in range(300):
        if taken and draw.random() < 0.5:
            at = draw.choice(sorted(taken))
            pool.give(at)
            del taken[at]
        else:
            nbytes = draw.randint(1, 200)
            at = pool.take(nbytes)
            if at is not None:
                taken[at] = nbytes
        spans = sorted((at, at + n) for at, n in taken.items())
        ends = [0, *(end for _, end in spans)]
        assert all(end <= at for end, (at, _) in zip(ends, spans, strict=False))
        assert ends[-1] <= 1000
        assert pool.used == sum(taken.values())
    for at in taken:
        pool.give(at)
    assert pool.take(1000) == 0


def test_an_empty_pool_has_nothing():
    assert Pool(0).take(1) is None
    assert Pool(-5).take(1) is None


def test_addresses_of_tensors_that_never_move():
    tensors = [
        Tensor(0, 1, (0, 1)),
        Tensor(1, 1, (1, 3)),
        Tensor(2, 1, (1, 2)),
        Tensor(3, 1, (2, 3)),
        Tensor(4, 1, (3, 3)),
    ]
    found = problem(tensors, 4)
    # 2 is made before 0 leaves, and finds no place; 3 takes that of 0.
    pool = Pool(100)
    assert addresses(found, [40, 60, 10, 30, 10], pool) == [0, 40, None, 0, 30]
    assert pool.used == 0
