"""Other ways of single tensors, against the checker and against all of them."""

import dataclasses
import functools
from collections.abc import Iterator

import pytest

from autotm_jax.solve import (
    Fetch,
    Problem,
    Recipe,
    Recompute,
    Replay,
    Schedule,
    Store,
    Tensor,
    Way,
    anneal,
    decisions,
    offload_everything,
    replay,
)

from .problems import KIB, limit_between, problem, random_problem


# A value is made, waits over eight segments, and is read again.
WAITS = Tensor(0, 100, (0, 9))
MS = 1e-3


@functools.cache
def plans() -> list[tuple[Problem, Schedule]]:
    """Random problems with tight limits, with good plans and with simple ones."""
    found = []
    for seed in range(48):
        free = random_problem(seed)
        limit = limit_between(free, 0.25)
        tight = dataclasses.replace(free, device_limit=limit)
        for schedule in (anneal(tight, Schedule(), 20.0), offload_everything(tight)):
            if schedule is not None and not replay(tight, schedule).faults:
                found.append((tight, schedule))
    return found


def unlimited(known: Problem, schedule: Schedule) -> Replay:
    """A schedule replayed with no limit that it could break."""
    free = dataclasses.replace(
        known, device_limit=float("inf"), host_limit=float("inf")
    )
    return replay(free, schedule)


def without(schedule: Schedule, value: int) -> Schedule:
    """A schedule that does nothing with a value."""
    return Schedule(
        tuple(s for s in schedule.stores if s.value != value),
        tuple(f for f in schedule.fetches if f.value != value),
        tuple(r for r in schedule.recomputes if r.value != value),
    )


def way_of(schedule: Schedule, value: int) -> Way:
    moves = any(s.value == value for s in schedule.stores)
    again = any(r.value == value for r in schedule.recomputes)
    if moves:
        return Way.BOTH if again else Way.MOVES
    return Way.AGAIN if again else Way.STAYS


def all_ways(known: Problem, schedule: Schedule, index: int) -> Iterator[Schedule]:
    """Every way of a tensor that is read once after its gap, the rest as it is."""
    tensor, rest = known.tensors[index], without(schedule, known.tensors[index].value)
    a, b = tensor.touches[-2:]
    yield rest
    for use in tensor.recipe.seconds if tensor.recipe is not None else ():
        again = Recompute(tensor.value, use)
        yield dataclasses.replace(rest, recomputes=(*rest.recomputes, again))
    for done in range(a + 1, b):
        for start in range(done, b):
            yield dataclasses.replace(
                rest,
                stores=(*rest.stores, Store(tensor.value, a, done)),
                fetches=(*rest.fetches, Fetch(tensor.value, start, b)),
            )


def test_every_figure_is_that_of_the_checker():
    seen = set()
    for tight, schedule in plans():
        before = replay(tight, schedule)
        for tensor, decision in zip(
            tight.tensors, decisions(tight, schedule), strict=True
        ):
            assert decision.way is way_of(schedule, tensor.value)
            ways = [other.way for other in decision.others]
            assert len(set(ways)) == len(ways)
            assert decision.way not in ways
            assert decision.has_gap or not ways
            fit = [other.fits for other in decision.others]
            assert fit == sorted(fit, reverse=True)
            for other in decision.others:
                assert way_of(other.schedule, tensor.value) is other.way
                state = unlimited(tight, other.schedule)
                assert not state.faults
                longer = state.makespan - before.makespan
                assert other.seconds == pytest.approx(longer, abs=1e-12)
                over = state.device.max() - tight.device_limit
                assert other.over == (int(over) if over > 1.001 else 0)
                assert state.device[other.segment] == state.device.max()
                assert other.fits == (not replay(tight, other.schedule).faults)
                seen.add((other.way, other.fits))
    assert seen >= {(way, fits) for way in list(Way)[:3] for fits in (True, False)}


def test_the_rest_stays_as_it_was():
    changed = 0
    for tight, schedule in plans():
        for tensor, decision in zip(
            tight.tensors, decisions(tight, schedule), strict=True
        ):
            for other in decision.others:
                kept = without(schedule, tensor.value)
                now = without(other.schedule, tensor.value)
                assert (now.stores, now.fetches) == (kept.stores, kept.fetches)
                # What it is made of may have to come back with it.
                more = {*now.recomputes} - {*kept.recomputes}
                roots = tensor.recipe.roots if tensor.recipe is not None else ()
                assert {*now.recomputes} >= {*kept.recomputes}
                assert {r.value for r in more} <= {
                    tight.tensors[r].value for r in roots
                }
                changed += 1
    assert changed > 40


def test_against_all_ways_of_a_tensor():
    compared = 0
    for tight, schedule in plans():
        for index, decision in enumerate(decisions(tight, schedule)):
            tensor = tight.tensors[index]
            a_root = any(
                index in t.recipe.roots for t in tight.tensors if t.recipe is not None
            )
            if len(tensor.touches) != 2 or a_root or not decision.has_gap:
                continue
            times: dict[Way, list[float]] = {}
            for trial in all_ways(tight, schedule, index):
                if not replay(tight, trial).faults:
                    way = way_of(trial, tensor.value)
                    times.setdefault(way, []).append(replay(tight, trial).makespan)
            for other in decision.others:
                found = replay(tight, other.schedule)
                roots = len(other.schedule.recomputes) - len(schedule.recomputes)
                if other.fits and roots <= 1:
                    # Copies have few windows here, the other ways have no choice.
                    assert found.makespan >= min(times[other.way]) - 1e-12
                    if other.way is not Way.MOVES:
                        assert found.makespan == pytest.approx(min(times[other.way]))
                elif other.way is Way.STAYS:
                    assert Way.STAYS not in times
                compared += 1
    assert compared > 50


def test_what_stays_would_cost_its_copies_or_its_recipe():
    recipe = Recipe({9: 2 * MS}, 0, ())
    tensor = dataclasses.replace(WAITS, recipe=recipe)
    one = problem([tensor], 10, device_limit=1000)
    (found,) = decisions(one, Schedule())
    assert (found.way, found.has_gap) == (Way.STAYS, True)
    moves, again = found.others
    # Both copies are hidden, but for their latency.
    assert (moves.way, moves.seconds) == (
        Way.MOVES,
        pytest.approx(2 * one.link.latency),
    )
    assert (again.way, again.seconds) == (Way.AGAIN, pytest.approx(2 * MS))
    assert moves.fits
    assert again.fits


def test_what_is_away_would_save_that_or_not_fit():
    recipe = Recipe({9: 2 * MS}, 0, ())
    tensor = dataclasses.replace(WAITS, recipe=recipe)
    other = Tensor(1, 70, (4, 5))
    tight = problem([tensor, other], 10, device_limit=150)
    again = Schedule(recomputes=(Recompute(0, 9),))
    found, _ = decisions(tight, again)
    assert found.way is Way.AGAIN
    moves, stays = found.others
    assert moves.fits
    assert moves.seconds == pytest.approx(2 * tight.link.latency - 2 * MS)
    assert (stays.way, stays.over, stays.segment) == (Way.STAYS, 20, 4)
    assert stays.seconds == pytest.approx(-2 * MS)
    assert not stays.fits


def test_host_memory_may_be_short_as_well():
    one = problem([WAITS], 10, device_limit=1000, host_limit=30)
    ((moves,),) = (d.others for d in decisions(one, Schedule()))
    assert (moves.over, moves.host_over, moves.fits) == (0, 70, False)


def test_a_way_that_there_is_not_is_missing():
    fixed = dataclasses.replace(WAITS, movable=False)
    brief = Tensor(1, KIB, (3, 4, 5))
    one = problem([fixed, brief], 10)
    first, second = decisions(one, Schedule())
    assert (first.has_gap, first.others) == (True, ())
    assert (second.has_gap, second.others) == (False, ())


def test_what_it_is_made_of_comes_back_with_it():
    root = Tensor(0, 100, (0, 1), (9,), recipe=Recipe({9: 1 * MS}, 0, ()))
    tensor = Tensor(1, 100, (1, 9), recipe=Recipe({9: 2 * MS}, 0, (0,)))
    between = Tensor(2, 120, (4, 5))
    tight = problem([root, tensor, between], 10, device_limit=200)
    moved = Schedule((Store(1, 1, 3),), (Fetch(1, 7, 9),))
    _, found, _ = decisions(tight, moved)
    again = next(o for o in found.others if o.way is Way.AGAIN)
    # Kept for it, the root would not fit in the middle.
    assert again.schedule.recomputes == (Recompute(0, 9), Recompute(1, 9))
    assert again.seconds == pytest.approx(3 * MS - 2 * tight.link.latency)
    assert again.fits


def test_a_tensor_with_two_gaps_goes_one_way_over_those_it_is_away():
    recipe = Recipe({9: 1 * MS, 18: 1 * MS}, 0, ())
    tensor = Tensor(0, 100, (0, 9, 18), recipe=recipe)
    one = problem([tensor], 19, device_limit=1000)
    both = Schedule((Store(0, 0, 2),), (Fetch(0, 7, 9),), (Recompute(0, 18),))
    (found,) = decisions(one, both)
    assert found.way is Way.BOTH
    schedules = {other.way: other.schedule for other in found.others}
    assert schedules[Way.STAYS] == Schedule()
    assert [f.use for f in schedules[Way.MOVES].fetches] == [9, 18]
    assert schedules[Way.AGAIN].recomputes == (Recompute(0, 9), Recompute(0, 18))
