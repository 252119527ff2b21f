import dataclasses
import itertools

from autotm_jax.solve import Crossing, Recipe, Schedule, Tensor, greedy, replay

from .problems import KIB, loop_problem, problem, random_problem


def test_nothing_is_done_where_everything_fits():
    free = problem([Tensor(0, KIB, (0, 5))], device_limit=KIB)
    assert greedy(free) == Schedule()


def test_the_cheaper_choice_is_taken():
    dear = Recipe({5: 1.0}, 0, ())
    cheap = Recipe({5: 1e-9}, 0, ())
    short = Tensor(1, 8 * KIB, (2, 3))
    for recipe, moves in [(dear, 1), (cheap, 0)]:
        tensor = Tensor(0, 8 * KIB, (0, 5), recipe=recipe)
        schedule = greedy(problem([tensor, short], device_limit=8 * KIB))
        assert schedule is not None
        assert len(schedule.stores) == len(schedule.fetches) == moves
        assert len(schedule.recomputes) == 1 - moves


def test_none_if_nothing_helps():
    pinned = Tensor(0, 8 * KIB, (0, 5), movable=False)
    short = Tensor(1, 8 * KIB, (2, 3))
    assert greedy(problem([pinned, short], device_limit=8 * KIB)) is None


def test_none_if_there_is_no_time():
    tensors = [Tensor(0, 8 * KIB, (0, 5)), Tensor(1, 8 * KIB, (2, 3))]
    tight = problem(tensors, device_limit=8 * KIB)
    assert greedy(tight, 0.0) is None
    assert greedy(tight, 10.0) is not None


def test_none_if_the_host_is_too_small():
    tensors = [Tensor(0, 8 * KIB, (0, 5)), Tensor(1, 8 * KIB, (2, 3))]
    tight = problem(tensors, device_limit=8 * KIB, host_limit=KIB)
    assert greedy(tight) is None
    assert greedy(dataclasses.replace(tight, host_limit=8 * KIB)) is not None


def test_every_plan_is_sound():
    found = 0
    for seed, part in itertools.product(range(100), (0.7, 0.85, 0.95)):
        free = random_problem(seed)
        limit = int(replay(free, Schedule()).device_peak * part)
        bounded = dataclasses.replace(free, device_limit=limit)
        schedule = greedy(bounded)
        if schedule is not None:
            found += 1
            assert replay(bounded, schedule).faults == (), seed
    assert found >= 30


def test_one_store_serves_several_gaps():
    tensors = [
        Tensor(0, 8 * KIB, (0, 4, 8)),
        Tensor(1, 8 * KIB, (2,)),
        Tensor(2, 8 * KIB, (6,)),
    ]
    bounded = problem(tensors, 9, device_limit=8 * KIB)
    schedule = greedy(bounded)
    assert schedule is not None
    assert len(schedule.stores) == 1
    assert len(schedule.fetches) == 2
    assert replay(bounded, schedule).faults == ()


def test_a_stack_weighs_on_both_loops():
    # Over the limit is a segment before the gap between the loops.
    crossing = Crossing((0, 4), (4, 8), 3)
    across = Tensor(0, 8 * KIB, (2, 5), times=3, crossing=crossing)
    early = Tensor(1, 20 * KIB, (0, 1), times=3)
    schedule = greedy(problem([across, early], 8, device_limit=24 * KIB))
    assert schedule is not None
    assert [s.value for s in schedule.stores] == [0]


def test_every_greedy_plan_is_sound_where_there_are_loops():
    found = 0
    for seed in range(60):
        free = loop_problem(seed, longest=6, tensors=4)
        limit = 0.75 * replay(free, Schedule()).device_peak
        bounded = dataclasses.replace(free, device_limit=limit)
        schedule = greedy(bounded)
        if schedule is not None:
            found += 1
            assert replay(bounded, schedule).faults == (), seed
    assert found >= 30
