import dataclasses

from autotm_jax.solve import (
    Fetch,
    Problem,
    Recipe,
    Recompute,
    Schedule,
    Store,
    Tensor,
    replay,
)
from autotm_jax.solve.lives import Buffer, Lives
from autotm_jax.timeline import Timeline

from .problems import problem


def lives(hand: Problem, schedule: Schedule) -> Lives:
    """When the buffers of a sound plan are there."""
    state = replay(hand, schedule)
    assert not state.faults
    return Lives(hand, state)


def of_size(found: Lives, nbytes: int) -> list[Buffer]:
    """The buffers of so many bytes."""
    return [b for b in found.buffers if b.nbytes == nbytes]


OPERAND = Tensor(0, 20, (0, 2, 4))


def test_what_is_read_early_in_a_segment_leaves_when_it_was_read():
    # It goes to the host after segment 0, and is dropped once segment 2 has read it.
    hand = problem([OPERAND])
    away = Schedule((Store(0, 0, 2),), (Fetch(0, 4, 4),))
    early = Timeline((1, 1, 1), read=((0, 1),))
    found = lives(dataclasses.replace(hand, timelines={2: early}), away)
    first, _ = of_size(found, 20)
    # One moment of segment 0, one of segment 1, one when 2 is reached, one in it.
    assert (first.born, first.dead) == (0, 4)
    late = lives(hand, away)
    assert of_size(late, 20)[0].end == 3


def test_what_is_stored_when_a_segment_is_over_is_there_until_then():
    # As above, but read at first, and then stored while everything waits.
    hand = problem([OPERAND])
    away = Schedule((Store(0, 2, 3),), (Fetch(0, 4, 4),))
    early = Timeline((1, 1, 1), read=((0, 1),))
    found = lives(dataclasses.replace(hand, timelines={2: early}), away)
    first, _ = of_size(found, 20)
    assert (first.born, first.dead) == (0, 6)


def test_what_is_computed_again_apart_has_moments_of_its_own():
    recipe = Recipe({4: 1.0}, 70, (1,))
    again, root = Tensor(0, 20, (0, 4), recipe=recipe), Tensor(1, 30, (0, 3), (4,))
    # Made at the second moment, when 70 bytes are needed; the root is read at first.
    timeline = Timeline((3, 4), own=((70, 1, 2, 2),), made=((0, 1, 2),), read=((1, 1),))
    hand = dataclasses.replace(problem([again, root]), apart={(0, 4): timeline})
    found = lives(hand, Schedule(recomputes=(Recompute(0, 4),)))
    _, second = of_size(found, 20)
    (workspace,) = of_size(found, 70)
    # Segments 0 to 3 have a moment each, and so has segment 4 itself at the end.
    assert (second.born, second.dead) == (6, 8)
    assert (workspace.born, workspace.dead) == (6, 7)
    assert of_size(found, 30)[0].dead == 6
    ticks = found.ticks()
    assert ticks[7] - ticks[6] == 4


def test_a_recomputation_that_is_not_known_needs_its_workspace_when_it_is_reached():
    again = Tensor(0, 20, (0, 4), recipe=Recipe({4: 1.0}, 70, ()))
    found = lives(problem([again]), Schedule(recomputes=(Recompute(0, 4),)))
    (workspace,) = of_size(found, 70)
    assert (workspace.first, workspace.end) == (4, 5)


def test_ticks_are_those_of_the_segments_and_of_copies():
    hand = problem([Tensor(0, 20, (0, 5))])
    known = dataclasses.replace(hand, timelines={2: Timeline((7, 9))})
    still = lives(known, Schedule()).ticks()
    moved = lives(known, Schedule((Store(0, 0, 2),), (Fetch(0, 4, 5),))).ticks()
    assert (still[4] - still[3], still[5] - still[4]) == (7, 9)
    assert moved[-1] > still[-1]
    assert (moved[1:] >= moved[:-1]).all()
