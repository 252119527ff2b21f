import dataclasses

import pytest

from autotm_jax.solve import (
    Crossing,
    Fetch,
    Recipe,
    Recompute,
    Schedule,
    Store,
    Tensor,
    offload_everything,
    recompute_everything,
    replay,
)

from .problems import KIB, loop_problem, problem, random_problem


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


def test_a_tensor_is_computed_again_for_each_use_after_a_long_gap():
    tensors = [
        Tensor(0, KIB, (0, 1, 8)),
        Tensor(1, KIB, (1, 2, 6, 8), recipe=Recipe({2: 1e-3, 6: 1e-3, 8: 1e-3}, 0, ())),
        Tensor(2, KIB, (2, 9), recipe=Recipe({5: 1e-3}, 0, ())),
    ]
    # Not at 2 and 8, just after another use, and not where there is no recipe for it.
    schedule = recompute_everything(problem(tensors, 10))
    assert schedule == Schedule(recomputes=(Recompute(1, 6),))


def recipe_of(root: int, *uses: int) -> Recipe:
    """A recipe of a millisecond wherever it may be followed, from one root."""
    return Recipe(dict.fromkeys(uses, 1e-3), 0, (root,))


def test_nothing_is_kept_for_a_recomputation_alone():
    for last, again in [(1, ()), (5, ()), (6, (8,)), (8, (8,))]:
        root = Tensor(0, KIB, (0, last), movable=False)
        made = Tensor(1, KIB, (1, 8), recipe=recipe_of(0, 8))
        schedule = recompute_everything(problem([root, made], 9))
        assert tuple(r.use for r in schedule.recomputes) == again, last


def test_a_root_that_was_dropped_comes_back_with_what_is_made_from_it():
    first = Tensor(0, KIB, (0, 9), (6,), recipe=Recipe({6: 1e-3, 9: 1e-3}, 0, ()))
    chain = [first, Tensor(1, KIB, (1, 6), recipe=recipe_of(0, 6))]
    free = problem(chain, 10)
    schedule = recompute_everything(free)
    # It stays from 6 on if 9 is near, and is dropped once more if it is not.
    assert schedule.recomputes == (Recompute(0, 6), Recompute(0, 9), Recompute(1, 6))
    assert replay(free, schedule).faults == ()
    near = dataclasses.replace(
        first, touches=(0, 8), recipe=Recipe({6: 1, 8: 1}, 0, ())
    )
    schedule = recompute_everything(problem([near, chain[1]], 10))
    assert schedule.recomputes == (Recompute(0, 6), Recompute(1, 6))
    # Where it may not come back, what is made from it stays.
    never = dataclasses.replace(first, recipe=Recipe({9: 1e-3}, 0, ()))
    schedule = recompute_everything(problem([never, chain[1]], 10))
    assert schedule.recomputes == (Recompute(0, 9),)


@pytest.mark.parametrize(("longest", "tensors"), [(3, 3), (7, 5)])
def test_it_is_sound_where_there_are_loops(longest: int, tensors: int):
    less = 0
    for seed in range(80):
        free = loop_problem(seed, longest, tensors)
        free = dataclasses.replace(free, host_limit=float("inf"))
        state, kept = replay(free, offload_everything(free)), replay(free, Schedule())
        assert state.faults == (), seed
        assert state.device_peak <= kept.device_peak
        less += state.device_peak < kept.device_peak
        again = recompute_everything(free)
        assert replay(free, again).faults == (), seed
        assert again.stores == again.fetches == ()
        moved = {t.value for t in free.tensors if t.movable and _is_read(t)}
        assert {s.value for s in offload_everything(free).stores} >= moved
    assert less >= 60


def _is_read(tensor: Tensor) -> bool:
    crossing = tensor.crossing
    return crossing is not None and tensor.touches[-1] >= crossing.read[0]


def test_what_crosses_moves_from_loop_to_loop_only():
    # Eight segments each, with long gaps inside of both, and none between them.
    crossing = Crossing((0, 8), (8, 16), 3)
    across = Tensor(0, KIB, (0, 7, 8, 15), times=3, crossing=crossing)
    free = problem([across], 16)
    schedule = offload_everything(free)
    assert schedule == Schedule((Store(0, 7, 8),), (Fetch(0, 8, 8), Fetch(0, 14, 15)))
    assert replay(free, schedule).faults == ()
    recipe = Recipe({7: 1e-3, 8: 1e-3, 15: 1e-3}, 0, ())
    again = recompute_everything(
        problem([dataclasses.replace(across, recipe=recipe)], 16)
    )
    assert again == Schedule(recomputes=(Recompute(0, 8), Recompute(0, 15)))


def test_nothing_is_stacked_for_a_recomputation_alone():
    crossing = Crossing((0, 4), (4, 8), 3)
    for read, recomputed in (((5,), True), ((), False)):
        root = Tensor(0, KIB, (1, 3, *read), (4,), times=3, crossing=crossing)
        made = Tensor(
            1, KIB, (2, 4), recipe=recipe_of(0, 4), times=3, crossing=crossing
        )
        schedule = recompute_everything(problem([root, made], 8))
        assert bool(schedule.recomputes) == recomputed


@pytest.mark.parametrize("seed", range(100))
def test_computing_everything_again_is_sound(seed: int):
    free = random_problem(seed)
    schedule = recompute_everything(free)
    assert replay(free, schedule).faults == ()
    assert schedule.stores == schedule.fetches == ()
