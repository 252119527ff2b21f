import dataclasses

from autotm_jax.solve import (
    Carried,
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
    # One moment of segment 0, one of segment 1, one until it is stored, one when 2 is
    # reached, one in it.
    assert (first.born, first.dead) == (0, 5)
    late = lives(hand, away)
    assert of_size(late, 20)[0].end == 3


def test_what_is_stored_when_a_segment_is_over_is_there_until_then():
    # As above, but read at first, and then stored while everything waits.
    hand = problem([OPERAND])
    away = Schedule((Store(0, 2, 3),), (Fetch(0, 4, 4),))
    early = Timeline((1, 1, 1), read=((0, 1),))
    found = lives(dataclasses.replace(hand, timelines={2: early}), away)
    first, _ = of_size(found, 20)
    # Until the moment in which everything waits is over.
    assert (first.born, first.dead) == (0, 7)


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


def test_what_is_brought_comes_after_what_leaves_while_everything_waits():
    # At cut 2 one leaves, and another one is brought back.
    hand = problem([Tensor(0, 20, (1, 5)), Tensor(1, 30, (0, 2))])
    stores = Store(0, 1, 2), Store(1, 0, 1)
    found = lives(hand, Schedule(stores, (Fetch(0, 5, 5), Fetch(1, 2, 2))))
    (leaves, _), (_, comes) = of_size(found, 20), of_size(found, 30)
    assert (leaves.end, comes.first) == (2, 2)
    assert leaves.dead == comes.born
    ticks = found.ticks()
    # Each has a context that begins and ends, and a buffer that does one of the two;
    # and the segment has a tick itself.
    assert ticks[leaves.dead] - ticks[leaves.dead - 1] == 3
    assert ticks[comes.born + 1] - ticks[comes.born] == 3 + 1


def test_a_copy_has_ticks_where_it_begins_and_where_it_ends():
    hand = problem([OPERAND])
    still = lives(hand, Schedule((Store(0, 0, 1),), (Fetch(0, 4, 4),)))
    beside = lives(hand, Schedule((Store(0, 0, 2),), (Fetch(0, 3, 4),)))
    assert still.ticks().tolist() == [0, 1, 1 + 3, 5, 6, 7, 8 + 3, 12]
    assert beside.ticks().tolist() == [0, 1, 2 + 1, 3 + 2, 6, 7 + 2, 10 + 1, 12]


def test_a_state_on_the_host_comes_and_goes_as_segments_read_and_make_it():
    leaf = Tensor(7, 40, (1, 4), carried=Carried((4, 5), 6, result=9))
    # Segment 4 makes what takes its place, and then has read it.
    known = Timeline((1, 1, 1), made=((9, 1, 3),), dying=((7, 2, 2),))
    hand = dataclasses.replace(problem([leaf]), timelines={4: known})
    copies = (Store(7, 5, 6),), (Fetch(7, 1, 1), Fetch(7, 4, 4))
    _, old, new = of_size(lives(hand, Schedule(*copies)), 40)
    assert (old.first, new.first) == (4, 4)
    assert (new.born, old.dead) == (old.born + 2, old.born + 3)
    # Nothing is known of it where it was compiled as a state on the device.
    hand = dataclasses.replace(hand, timelines={4: Timeline((1, 1, 1))})
    _, old, new = of_size(lives(hand, Schedule(*copies)), 40)
    assert old.born == new.born and old.dead == old.born + 4
