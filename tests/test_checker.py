import dataclasses

import numpy as np
import pytest

from autotm_jax.solve import (
    Configuration,
    Fetch,
    Link,
    Pick,
    Problem,
    Recipe,
    Recompute,
    Schedule,
    Store,
    Stream,
    Tensor,
    Variant,
    replay,
)

from .problems import problem


# Value 10 may leave between 0 and 5; value 11 is read along the way; value 12 may be
# computed again from value 11, which is still there; value 13 stays.
TENSORS = (
    Tensor(10, 100, (0, 5)),
    Tensor(11, 40, (0, 2, 4, 5)),
    Tensor(12, 70, (1, 5), recipe=Recipe({5: 0.5}, 9, (1,))),
    Tensor(13, 20, (1, 4), movable=False),
)
LINK = Link(d2h=100.0, h2d=50.0, duplex=100.0, latency=0.25)
PROBLEM = problem(
    TENSORS,
    compute=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    workspace=[0, 5, 0, -10, 0, 3],
    small=[(7, 1, 4)],
    link=LINK,
    variants={3: (Variant("lean", 1.5, -30),)},
    configurations={
        0: (Configuration(frozenset({0}), 1.25, 100),),
        5: (Configuration(frozenset({0}), 2.25, 100),),
    },
)
SOUND = Schedule((Store(10, 0, 2),), (Fetch(10, 3, 5),), (Recompute(12, 5),))


Part = Store | Fetch | Recompute | Stream | Pick


def faults(problem: Problem, *parts: Part) -> str:
    """What the checker says about a schedule, in one text."""
    schedule = Schedule(
        tuple(p for p in parts if isinstance(p, Store)),
        tuple(p for p in parts if isinstance(p, Fetch)),
        tuple(p for p in parts if isinstance(p, Recompute)),
        tuple(p for p in parts if isinstance(p, Stream)),
        tuple(p for p in parts if isinstance(p, Pick)),
    )
    return " ".join(replay(problem, schedule).faults)


def test_without_a_schedule_everything_stays():
    state = replay(PROBLEM, Schedule())
    assert state.faults == ()
    assert state.device.tolist() == [
        100 + 40,
        100 + 40 + 70 + 20 + 7 + 5,
        100 + 40 + 70 + 20 + 7,
        100 + 40 + 70 + 20 + 7 - 10,
        100 + 40 + 70 + 20,
        100 + 40 + 70 + 3,
    ]
    assert state.host.tolist() == [0] * 6
    assert state.device_peak == 242
    assert state.host_peak == 0
    assert state.makespan == 6.0
    assert sorted(state.alive(4)) == [10, 11, 12, 13]
    assert sorted(state.alive(5)) == [10, 11, 12]


def test_a_sound_schedule_by_hand():
    state = replay(PROBLEM, SOUND)
    assert state.faults == ()
    # 10 is on the device at 0, at 1 while it is stored, and from 3 on; 12 at 1 and 5.
    assert state.device.tolist() == [
        100 + 40,
        100 + 40 + 70 + 20 + 7 + 5,
        40 + 20 + 7,
        100 + 40 + 20 + 7 - 10,
        100 + 40 + 20,
        # While 12 is computed again its workspace is needed, before that of segment 5.
        100 + 40 + 70 + 9,
    ]
    assert state.host.tolist() == [0, 100, 100, 100, 100, 0]
    assert state.compute.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 1.5]
    # 100 bytes out in one segment take 1 s; 100 bytes in over two take 1 s each.
    assert state.seconds.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 1.5 + 2 * 0.25]
    assert state.makespan == pytest.approx(7.0)
    assert (10, 0, 2) in state.stays
    assert (10, 3, 6) in state.stays
    assert (12, 5, 6) in state.stays


def test_copies_that_compute_does_not_hide_take_time():
    narrow = dataclasses.replace(PROBLEM, link=Link(20.0, 50.0, 10.0, 0.0))
    state = replay(narrow, SOUND)
    assert state.seconds.tolist() == [1.0, 10.0, 1.0, 5.0, 5.0, 1.5]


def test_a_copy_is_spread_by_compute_seconds():
    uneven = dataclasses.replace(PROBLEM, compute=(1.0, 1.0, 1.0, 3.0, 1.0, 1.0))
    narrow = dataclasses.replace(uneven, link=Link(1e9, 10.0, 1e9, 0.0))
    state = replay(narrow, SOUND)
    assert state.seconds[3:5].tolist() == [7.5, 2.5]


def test_everything_waits_for_a_copy_that_has_no_time():
    sync = Schedule((Store(10, 0, 1),), (Fetch(10, 5, 5),))
    state = replay(PROBLEM, sync)
    assert state.faults == ()
    gone = replay(PROBLEM, Schedule()).device - state.device
    assert gone.tolist() == [0, 100, 100, 100, 100, 0]
    assert state.host.tolist() == [0, 100, 100, 100, 100, 100]
    # 0.25 s of latency each, 100 bytes at 100 and at 50 bytes per second
    assert state.makespan == 6.0 + 1.25 + 2.25


def test_a_copy_beside_one_segment_holds_the_device_longer():
    late = Schedule((Store(10, 0, 3, 2),), (Fetch(10, 3, 5, 4),))
    state = replay(PROBLEM, late)
    assert state.faults == ()
    assert [s for s in state.stays if s[0] == 10] == [(10, 0, 3), (10, 3, 6)]
    assert state.seconds.tolist() == [1.0, 1.0, 1.0, 2.0, 1.0, 1.5]
    assert state.host.tolist() == [0, 0, 100, 100, 0, 0]


def test_a_stream_is_priced_by_its_configuration():
    state = replay(PROBLEM, Schedule(streams=(Stream(10, 0), Stream(10, 5))))
    assert state.faults == ()
    assert state.makespan == 6.0 + 1.25 + 2.25
    assert not [s for s in state.stays if s[0] == 10]
    gone = replay(PROBLEM, Schedule()).device - state.device
    assert gone.tolist() == [0, 100, 100, 100, 100, 0]  # staged at 0 and 5
    assert state.host.tolist() == [100] * 6


def test_a_variant_takes_its_own_time_and_workspace():
    state = replay(PROBLEM, Schedule(picks=(Pick(3, 1),)))
    assert state.faults == ()
    assert state.makespan == 6.5
    assert (replay(PROBLEM, Schedule()).device - state.device).tolist() == [
        *[0, 0, 0],
        20,
        *[0, 0],
    ]


def test_one_run_makes_several_tensors():
    recipe = Recipe({4: 1.0, 5: 2.0}, 0, (), run=7)
    tensors = [Tensor(i, 50, (0, 4, 5), recipe=recipe) for i in range(3)]
    alone = dataclasses.replace(recipe, run=None)
    tensors[2] = dataclasses.replace(tensors[2], recipe=alone)
    hand = problem(tensors)
    first, *others = (Recompute(i, 4) for i in range(3))
    usual = replay(hand, Schedule()).makespan
    for made, seconds in (
        ((first,), 1),
        ((first, others[0]), 1),
        ((first, *others), 2),
    ):
        state = replay(hand, Schedule(recomputes=made))
        assert state.makespan == pytest.approx(usual + seconds)
    twice = Schedule(recomputes=(first, Recompute(1, 5)))
    assert replay(hand, twice).makespan == pytest.approx(usual + 3)


def test_what_the_segment_makes_is_not_there_while_it_waits_for_recomputation():
    tensors = (
        Tensor(0, 50, (0, 4), recipe=Recipe({4: 1.0}, 30, ())),
        Tensor(1, 80, (4, 5)),
    )
    state = replay(problem(tensors), Schedule(recomputes=(Recompute(0, 4),)))
    assert state.faults == ()
    # max(50 + 80 in segment 4, 50 + 30 before it)
    assert state.device[4] == 130
    more = dataclasses.replace(tensors[0], recipe=Recipe({4: 1.0}, 200, ()))
    state = replay(problem((more, tensors[1])), Schedule((), (), (Recompute(0, 4),)))
    assert state.device[4] == 250


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((Fetch(10, 3, 5),), "Value 10 is fetched for 5 before it is stored."),
        (
            (Store(10, 0, 4), Fetch(10, 3, 5)),
            "Value 10 is fetched for 5 before it is stored.",
        ),
        (
            (Store(10, 0, 2), Store(10, 0, 3), Fetch(10, 3, 5)),
            "Value 10 is written to the host more than once.",
        ),
        (
            (Store(10, 0, 2), Fetch(10, 3, 5), Fetch(10, 4, 5)),
            "Value 10 arrives twice at segment 5.",
        ),
        (
            (Store(12, 1, 3), Fetch(12, 4, 5), Recompute(12, 5)),
            "Value 12 arrives twice at segment 5.",
        ),
        (
            (Store(10, 0, 2), Fetch(10, 6, 5)),
            "Value 10 is fetched for 5 outside of its gap.",
        ),
        (
            (Store(11, 0, 1), Fetch(11, 3, 5)),
            "Value 11 is fetched for 5 outside of its gap.",
        ),
        (
            (Store(10, 1, 3), Fetch(10, 3, 5)),
            "Value 10 is stored when it is not on the device.",
        ),
        (
            (Store(10, 0, 0), Fetch(10, 3, 5)),
            "Value 10 is stored when it is not on the device.",
        ),
        (
            (Store(11, 0, 4), Fetch(11, 4, 5)),
            "Value 11 is still being stored when it is used.",
        ),
        ((Store(13, 1, 2), Fetch(13, 3, 4)), "Value 13 moves, but is not movable."),
        ((Recompute(12, 4),), "Value 12 may not be computed again at 4."),
        ((Recompute(10, 5),), "Value 10 may not be computed again at 5."),
        (
            (Store(99, 0, 2),),
            "There is a store of value 99, which is no tensor.",
        ),
        ((Fetch(99, 0, 2),), "There is a fetch of value 99, which is no tensor."),
        (
            (Recompute(99, 2),),
            "There is a recomputation of value 99, which is no tensor.",
        ),
        ((Stream(99, 2),), "There is a stream of value 99, which is no tensor."),
        ((Stream(10, 5),), "Value 10 is streamed at 5 before it is stored."),
        (
            (Store(10, 0, 5, 6), Fetch(10, 5, 5)),
            "Value 10 is stored when it is not on the device.",
        ),
        (
            (Stream(10, 0), Store(10, 0, 1), Stream(10, 5)),
            "Value 10 is written to the host more than once.",
        ),
        (
            (Stream(10, 0), Store(10, 0, 1), Stream(10, 5)),
            "Value 10 is stored when it is not on the device.",
        ),
        (
            (Store(10, 0, 2), Fetch(10, 3, 5), Stream(10, 5)),
            "Value 10 is wanted on the device at 5, and streamed there.",
        ),
        ((Stream(10, 3),), "Value 10 is streamed at 3, which does not touch it."),
        ((Stream(11, 0),), "Value 11 is on the host when segment 2 uses it."),
        ((Stream(11, 0),), "Segment 0 cannot run with [11] on the host."),
        ((Stream(13, 4),), "Value 13 moves, but is not movable."),
        ((Pick(2, 1),), "Segment 2 has no variant 1."),
        ((Pick(3, 2),), "Segment 3 has no variant 2."),
        ((Pick(3, 0),), "Segment 3 has no variant 0."),
        ((Pick(3, 1), Pick(3, 1)), "Segment 3 runs by two variants."),
    ],
)
def test_each_rule(parts: tuple[Part, ...], text: str):
    assert text in faults(PROBLEM, *parts)


def test_a_root_has_to_be_made_before_it_is_read():
    tensors = (
        Tensor(0, 10, (0, 3), recipe=Recipe({3: 1.0}, 0, (1,))),
        Tensor(1, 10, (4, 5)),
    )
    found = faults(problem(tensors), Recompute(0, 3))
    assert "Value 1 is used before it is made." in found


def test_the_limits():
    low = dataclasses.replace(PROBLEM, device_limit=200)
    assert faults(low) == "Segment 1 needs 242 device bytes, over the limit of 200."
    low = dataclasses.replace(PROBLEM, host_limit=90)
    said = faults(low, *SOUND.stores, *SOUND.fetches)
    assert said == "The host copies take 100 bytes, over the limit of 90."
    exact = dataclasses.replace(PROBLEM, device_limit=242, host_limit=100)
    assert replay(exact, SOUND).faults == ()


def test_several_faults_are_all_reported():
    said = replay(PROBLEM, Schedule((), (Fetch(10, 3, 5), Fetch(99, 1, 2)))).faults
    assert len(said) == 2


def test_nothing_to_do():
    state = replay(problem([], 1), Schedule())
    assert state.faults == ()
    assert np.array_equal(state.device, [0])
