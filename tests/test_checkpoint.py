import pytest

from autotm_jax.simulate import dots_saveable, nothing_saveable
from autotm_jax.solve import Recipe, Schedule, Tensor, replay

from .problems import problem, random_problem


def test_by_hand():
    # Value 1 is made from value 0, and value 2 from value 1, a dot.
    tensors = [
        Tensor(0, 1000, (0, 1, 9)),
        Tensor(1, 2000, (1, 2, 8), recipe=Recipe({8: 0.5e-3}, 0, (0,))),
        Tensor(2, 4000, (2, 3, 7), optional=(8,), recipe=Recipe({7: 0.25e-3}, 0, (0,))),
    ]
    known = problem(tensors, 10)
    nothing = nothing_saveable(known)
    assert nothing.seconds == pytest.approx(10e-3 + 0.75e-3)
    # At segment 2: all three.
    assert nothing.fast_bytes == 7000 and nothing.note == ""
    dots = dots_saveable(known, {2})
    assert dots.seconds == pytest.approx(10e-3 + 0.5e-3)
    every = dots_saveable(known, {1, 2})
    assert every.seconds == pytest.approx(10e-3)
    assert every.fast_bytes == replay(known, Schedule()).device_peak


@pytest.mark.parametrize("seed", range(40))
def test_what_is_kept_costs_nothing(seed: int):
    known = random_problem(seed)
    compute = sum(known.compute)
    nothing = nothing_saveable(known)
    assert nothing.seconds >= compute - 1e-12
    assert (nothing.out, nothing.into, nothing.note) == (0, 0, "")
    assert dots_saveable(known, ()).seconds == nothing.seconds
    every = dots_saveable(known, range(len(known.tensors)))
    assert every.seconds == pytest.approx(compute)
    assert every.fast_bytes == replay(known, Schedule()).device_peak


def test_short_gaps_are_not_bridged():
    for last, again in ((3, 0), (4, 0.5e-3)):
        recipe = Recipe({last: 0.5e-3}, 0, ())
        known = problem([Tensor(0, 1000, (1, last), recipe=recipe)], 5)
        assert nothing_saveable(known).seconds == pytest.approx(5e-3 + again)


def test_a_limit_that_is_not_kept_is_noted():
    known = problem([Tensor(0, 1000, (0, 3))], 4, device_limit=500)
    assert "over the limit of 500" in nothing_saveable(known).note
