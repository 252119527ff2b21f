import dataclasses
import itertools

import numpy as np
import pytest

from autotm_jax.solve import (
    Crossing,
    Fetch,
    Link,
    Recipe,
    Recompute,
    Schedule,
    Store,
    Tensor,
    offload_everything,
    recompute_everything,
    replay,
    uniform,
)
from autotm_jax.solve.policies import at_leisure

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


def test_copies_at_leisure_hide_behind_compute():
    link = Link(d2h=8 * KIB, h2d=8 * KIB, duplex=16 * KIB, latency=0.0)
    clock = np.arange(21.0)
    # Three seconds each way.
    store, fetch = at_leisure(Tensor(7, 24 * KIB, (2, 18)), (2, 18), clock, link)
    assert store == Store(7, 2, 6)
    assert fetch == Fetch(7, 14, 18)
    # In a loop, all iterations' copies run beside all of its segments together.
    store, fetch = at_leisure(
        Tensor(7, 8 * KIB, (2, 18), times=3), (2, 18), clock, link
    )
    assert (store, fetch) == (Store(7, 2, 6), Fetch(7, 14, 18))
    # A gap that is too short for both ways is divided between them.
    store, fetch = at_leisure(Tensor(7, 24 * KIB, (2, 6)), (2, 6), clock, link)
    assert store == Store(7, 2, 5)
    assert fetch == Fetch(7, 5, 6)


def layers(*recipes: Recipe | None, limit: float = 20 * KIB, **options: float):
    """Two layers, each with one tensor that waits for its turn to come back."""
    tensors = [Tensor(i, 8 * KIB, (i, 12 - i), recipe=r) for i, r in enumerate(recipes)]
    tensors.append(Tensor(9, 12 * KIB, (5, 6)))
    return problem(tensors, 13, device_limit=limit, **options)  # type: ignore


def test_a_uniform_plan_does_nothing_where_everything_fits():
    assert uniform(layers(None, None, limit=28 * KIB)) == Schedule()


def test_what_looks_alike_is_treated_alike():
    free = layers(None, None)
    schedule = uniform(free)
    assert schedule is not None
    # One of them would have been enough.
    assert {s.value for s in schedule.stores} == {0, 1}
    assert {f.value for f in schedule.fetches} == {0, 1}
    cheap = layers(Recipe({12: 1e-9}, 0, ()), Recipe({11: 1e-9}, 0, ()))
    schedule = uniform(cheap)
    assert schedule == Schedule(recomputes=(Recompute(0, 12), Recompute(1, 11)))
    # Seconds that differ make another class, of which the cheaper one is enough.
    other = layers(Recipe({12: 1e-5}, 0, ()), Recipe({11: 1e-9}, 0, ()))
    assert uniform(other) == Schedule(recomputes=(Recompute(1, 11),))


def test_a_class_that_turns_out_needless_stays():
    cheap = Tensor(0, 8 * KIB, (0, 12), recipe=Recipe({12: 1e-9}, 0, ()))
    large = Tensor(1, 24 * KIB, (1, 11), recipe=Recipe({11: 1e-5}, 0, ()))
    tensors = [cheap, large, Tensor(2, 40 * KIB, (5, 6))]
    # The cheap one is taken first in both, and not enough in the second.
    enough = problem(tensors, 13, device_limit=64 * KIB)
    assert uniform(enough) == Schedule(recomputes=(Recompute(0, 12),))
    tight = problem(tensors, 13, device_limit=48 * KIB)
    assert uniform(tight) == Schedule(recomputes=(Recompute(1, 11),))


def test_no_uniform_plan_where_nothing_helps():
    assert uniform(layers(None, None, limit=11 * KIB)) is None
    assert uniform(layers(None, None, host_limit=15 * KIB)) is None
    assert uniform(layers(None, None, host_limit=16 * KIB)) is not None


def test_every_uniform_plan_is_sound():
    found = 0
    for seed, part in itertools.product(range(100), (0.7, 0.85, 0.95)):
        free = random_problem(seed)
        limit = int(replay(free, Schedule()).device_peak * part)
        bounded = dataclasses.replace(free, device_limit=limit)
        schedule = uniform(bounded)
        if schedule is not None:
            found += 1
            assert replay(bounded, schedule).faults == (), seed
    assert found >= 30


def test_uniform_plans_are_found_where_there_are_loops():
    found = feasible = 0
    for seed in range(60):
        free = loop_problem(seed, longest=6, tensors=4)
        free = dataclasses.replace(free, host_limit=float("inf"))
        limit = 0.75 * replay(free, Schedule()).device_peak
        bounded = dataclasses.replace(free, device_limit=limit)
        schedule = uniform(bounded)
        feasible += not replay(bounded, offload_everything(bounded)).faults
        if schedule is not None:
            found += 1
            assert replay(bounded, schedule).faults == (), seed
    assert found >= feasible >= 25
