"""What a tensor does under a schedule where there are loops, and what it may not do."""

import dataclasses

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
    replay,
)
from autotm_jax.solve.footprint import Footprint, footprint

from .problems import problem


# Loops over segments 1-4 and 6-9, of three iterations. Value 0 crosses from one to the
# other; value 1 is outside of both; value 2 is computed again outside, value 3 in the
# second loop.
CROSSING = Crossing((1, 5), (6, 10), 3, 0.5)
BOTH = (CROSSING.made, CROSSING.read)
TENSORS = (
    Tensor(0, 10, (1, 3, 7, 9), times=3, crossing=CROSSING),
    Tensor(1, 100, (0, 11), closed=BOTH),
    Tensor(2, 100, (0, 11), closed=BOTH, recipe=Recipe({8: 0.5, 11: 0.5}, 0, ())),
    Tensor(3, 10, (6, 9), times=3, recipe=Recipe({9: 0.5}, 0, (0,))),
)
AGAIN = Tensor(
    4, 10, (1, 7), times=3, crossing=CROSSING, recipe=Recipe({5: 0.5, 7: 0.5}, 0, ())
)
LINK = Link(d2h=10.0, h2d=5.0, duplex=10.0, latency=0.25)
PROBLEM = problem(TENSORS, 12, compute=[6.0] * 12, link=LINK)


def of(
    *copies: Store | Fetch, again: tuple[int, ...] = (), tensor: Tensor = TENSORS[0]
) -> Footprint:
    """The footprint of a tensor, value 0 unless told."""
    stores = [c for c in copies if isinstance(c, Store)]
    fetches = [c for c in copies if isinstance(c, Fetch)]
    return footprint(tensor, again, (), stores, fetches)


def test_what_stays_is_in_a_stack_from_the_first_loop_to_the_last():
    found = of()
    assert found.stack == (1, 10)
    # And a slice of it where it is used.
    assert found.stays == ((1, 4), (7, 10))
    assert found.host is None
    assert not found.faults
    state = replay(PROBLEM, Schedule(recomputes=(Recompute(2, 11),)))
    assert state.stacks == ((0, 1, 10),)
    # 30 bytes of the stack, a slice of 10, value 1, and value 3 from 6 on; value 2 at
    # 0 and 11.
    assert state.device.tolist() == [
        200,
        *[100 + 30 + 10] * 3,
        *[100 + 30] * 2,
        100 + 30 + 10,
        *[100 + 30 + 10 + 10] * 3,
        100,
        200,
    ]
    assert state.makespan == 12 * 6.0 + 0.5 + CROSSING.seconds
    assert (state.alive(5), state.stacked(5)) == ([1], [0])
    assert state.alive(7) == [0, 1, 3]
    assert state.stacked(7) == [0]


def test_what_is_away_is_in_a_stack_on_the_host():
    found = of(Store(0, 3, 5), Fetch(0, 6, 7))
    assert not found.faults
    assert found.stack is None
    assert found.stays == ((1, 5), (6, 10))
    assert found.host == CROSSING.span
    schedule = Schedule((Store(0, 3, 5),), (Fetch(0, 6, 7),))
    state = replay(PROBLEM, schedule)
    assert state.host.tolist() == [0, *[30] * 9, 0, 0]
    # Three latencies each way; 30 bytes out take 3 s, and 6 s in: they hide.
    assert state.makespan == 12 * 6.0 + 6 * 0.25


def test_every_iteration_waits_for_a_copy_at_once():
    schedule = Schedule((Store(0, 3, 4),), (Fetch(0, 7, 7), Fetch(0, 9, 9)))
    state = replay(PROBLEM, schedule)
    assert state.faults == ()
    assert state.makespan == 12 * 6.0 + 3 * (1.25 + 2.25 + 2.25)
    assert [s for s in state.stays if s[0] == 0] == [(0, 1, 4), (0, 7, 8), (0, 9, 10)]


def test_a_store_may_begin_while_the_loop_still_reads():
    found = of(Store(0, 1, 4, 2), Fetch(0, 6, 7))
    assert not found.faults
    assert found.out == ((2, 4),)
    assert found.stays == ((1, 4), (6, 10))
    late = of(Store(0, 1, 5), Fetch(0, 6, 7))
    assert not late.faults
    assert late.stays == ((1, 5), (6, 10))


def test_what_is_stored_and_never_wanted_again_stays_until_it_is_stored():
    unread = Tensor(0, 10, (1, 3), times=3, crossing=CROSSING)
    assert of(Store(0, 1, 5), tensor=unread).stays == ((1, 5),)


def test_a_fetch_ahead_holds_a_slice_of_this_iteration_and_one_of_the_next():
    found = of(Store(0, 3, 5), Fetch(0, 8, 7, 10))
    assert not found.faults
    assert found.ahead == 1
    assert found.into == ((8, 10),)
    # The next one's from 8 on, this one's from the start of the loop.
    assert found.stays == ((1, 5), (8, 10), (6, 10))
    state = replay(PROBLEM, Schedule((Store(0, 3, 5),), (Fetch(0, 8, 7, 10),)))
    assert state.faults == ()
    # The first iteration's is fetched before the loop.
    assert state.makespan == 12 * 6.0 + 6 * 0.25 + (0.25 + 2.0)


def test_back_in_the_second_loop():
    again = of(Store(0, 3, 5), Fetch(0, 6, 7), Fetch(0, 8, 9))
    assert not again.faults
    assert again.stays == ((1, 5), (6, 8), (8, 10))


def test_computed_again_in_the_loop_that_reads_it():
    found = of(again=(7,))
    assert not found.faults
    assert found.stack is None
    assert found.stays == ((1, 4), (7, 10))
    kept = of(again=(9,))
    assert kept.stack == (1, 10)
    assert kept.stays == ((1, 4), (7, 8), (9, 10))


def test_what_is_not_in_a_loop_is_copied_beside_all_of_it():
    found = of(Store(1, 0, 5), Fetch(1, 6, 11), tensor=TENSORS[1])
    assert not found.faults
    assert found.stays == ((0, 5), (6, 12))


ELSEWHERE = "Value 0 is fetched for 7 outside of its loop."
GAP = "Value 0 is fetched for 9 outside of its gap."
STORED = Store(0, 3, 5)


@pytest.mark.parametrize(
    ("parts", "texts"),
    [
        (
            (Store(0, 3, 6), Fetch(0, 6, 7)),
            ["Value 0 is stored after the loop that makes it."],
        ),
        (
            (Store(0, 7, 8), Fetch(0, 8, 9)),
            ["Value 0 is stored after the loop that makes it."],
        ),
        ((Store(0, 3, 4), Fetch(0, 5, 7)), [ELSEWHERE]),
        ((Store(0, 3, 4), Fetch(0, 4, 7)), [ELSEWHERE]),
        # Ends before it begins.
        ((STORED, Fetch(0, 7, 7, 6)), [ELSEWHERE]),
        # Ahead, with a wrong end.
        ((STORED, Fetch(0, 8, 7, 9)), [ELSEWHERE]),
        ((STORED, Fetch(0, 8, 7, 11)), [ELSEWHERE]),
        # Ahead, beginning before the loop.
        ((STORED, Fetch(0, 5, 7, 10)), [ELSEWHERE]),
        # Ahead, where it is not the first to arrive.
        ((STORED, Fetch(0, 6, 7), Fetch(0, 8, 9, 10)), [GAP]),
        # In the loop that makes it.
        (
            (Store(0, 1, 2), Fetch(0, 2, 3), Fetch(0, 6, 7)),
            ["Value 0 is fetched for 3 outside of its gap."],
        ),
        ((Fetch(0, 6, 7),), ["Value 0 is fetched for 7 before it is stored."]),
        ((Fetch(0, 8, 7, 10),), ["Value 0 is fetched for 7 before it is stored."]),
        ((Fetch(0, 8, 9),), ["Value 0 is fetched for 9 before it is stored."]),
        (
            (STORED, Fetch(0, 6, 7), Fetch(0, 8, 7, 10)),
            ["Value 0 arrives twice at segment 7."],
        ),
        (
            (STORED, Store(0, 1, 3), Fetch(0, 6, 7)),
            ["Value 0 is written to the host more than once."],
        ),
        (
            (Store(0, 2, 4), Fetch(0, 6, 7)),
            ["Value 0 is stored when it is not on the device."],
        ),
        (
            (Store(1, 0, 3), Fetch(1, 6, 11)),
            ["Value 1 is copied in the middle of a loop that it is not in."],
        ),
        (
            (Store(1, 0, 5), Fetch(1, 8, 11)),
            ["Value 1 is copied in the middle of a loop that it is not in."],
        ),
        (
            (Store(1, 0, 6, 3), Fetch(1, 6, 11)),
            ["Value 1 is copied in the middle of a loop that it is not in."],
        ),
        (
            (Recompute(2, 8),),
            ["Value 2 is computed again in a loop that it is not in."],
        ),
        (
            (Recompute(4, 5),),
            ["Value 4 is computed again outside of its loops."],
        ),
        ((Recompute(0, 7),), ["Value 0 may not be computed again at 7."]),
    ],
)
def test_each_rule(parts: tuple[Store | Fetch | Recompute, ...], texts: list[str]):
    schedule = Schedule(
        tuple(p for p in parts if isinstance(p, Store)),
        tuple(p for p in parts if isinstance(p, Fetch)),
        tuple(p for p in parts if isinstance(p, Recompute)),
    )
    more = dataclasses.replace(PROBLEM, tensors=(*TENSORS, AGAIN))
    assert list(replay(more, schedule).faults) == texts
