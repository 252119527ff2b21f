import dataclasses
import itertools

from autotm_jax.solve import (
    Problem,
    Recipe,
    Recompute,
    Schedule,
    Tensor,
    offload_everything,
    replay,
    uniform,
)

from .problems import KIB, loop_problem, problem, random_problem


def layers(
    *recipes: Recipe | None, limit: float = 20 * KIB, host_limit: float = float("inf")
) -> Problem:
    """Two layers, each with one tensor that waits for its turn to come back."""
    tensors = [Tensor(i, 8 * KIB, (i, 12 - i), recipe=r) for i, r in enumerate(recipes)]
    tensors.append(Tensor(9, 12 * KIB, (5, 6)))
    return problem(tensors, 13, device_limit=limit, host_limit=host_limit)


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
