import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax.solve import (
    Crossing,
    Fetch,
    Pick,
    Recipe,
    Recompute,
    Schedule,
    Store,
    Tensor,
    Variant,
    packed_bytes,
    replay,
)
from autotm_jax.solve.heap import pack
from autotm_jax.timeline import Timeline

from .problems import loop_problem, problem, random_problem


def least_height(buffers: list[tuple[int, int, int]]) -> int:
    """The smallest allocation that any order of first-fit placement reaches."""
    best = sum(nbytes for nbytes, _, _ in buffers)
    for order in itertools.permutations(buffers):
        placed: list[tuple[int, int, int, int]] = []
        for nbytes, first, end in order:
            busy = sorted(
                (at, at + size) for size, a, b, at in placed if a < end and first < b
            )
            offset = 0
            for low, high in busy:
                if low - offset >= nbytes:
                    break
                offset = max(offset, high)
            placed.append((nbytes, first, end, offset))
        best = min(best, max(at + size for size, _, _, at in placed))
    return best


def taken(buffers: list[tuple[int, int, int]], segments: int = 6) -> int:
    """What the packer makes of buffers given as (bytes, first, end)."""
    tensors = [
        Tensor(i, nbytes, (first, end - 1) if end - first > 1 else (first,))
        for i, (nbytes, first, end) in enumerate(buffers)
    ]
    hand = problem(tensors, segments)
    return packed_bytes(hand, replay(hand, Schedule()))


BUFFERS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(1, 6)).map(
        lambda b: (b[0], min(b[1], b[2] - 1), b[2])
    ),
    min_size=1,
    max_size=5,
)


@given(BUFFERS)
def test_no_better_than_any_packing(buffers: list[tuple[int, int, int]]):
    live = [sum(n for n, a, b in buffers if a <= k < b) for k in range(6)]
    found = taken(buffers)
    assert max(live) <= least_height(buffers) <= found
    assert found <= sum(nbytes for nbytes, _, _ in buffers)


@pytest.mark.parametrize(
    ("buffers", "nbytes"),
    [
        ([(5, 0, 3)], 5),
        ([(5, 0, 3), (7, 3, 6)], 7),
        ([(5, 0, 4), (7, 3, 6)], 12),
        # 2 and 3 share the place of 5, before and after it.
        ([(5, 2, 4), (3, 0, 2), (2, 0, 2), (4, 4, 6)], 5),
        # Three that overlap in pairs: 3 + 3 live bytes, but the third finds no gap
        # below the second.
        ([(4, 0, 3), (4, 2, 5), (4, 4, 6)], 8),
    ],
)
def test_by_hand(buffers: list[tuple[int, int, int]], nbytes: int):
    assert taken(buffers) == nbytes


def test_gaps_cost_more_than_live_bytes():
    # Live bytes never exceed 8, but 4 between 2 and 6 leaves gaps of 2 that 3 and 5
    # do not fit.
    buffers = [(2, 0, 4), (4, 0, 2), (2, 0, 1), (5, 3, 6), (3, 2, 3), (1, 2, 4)]
    live = max(sum(n for n, a, b in buffers if a <= k < b) for k in range(6))
    assert taken(buffers) >= live


@pytest.mark.parametrize("seed", range(0, 40, 3))
def test_never_less_than_live_bytes(seed: int):
    free = random_problem(seed)
    state = replay(free, Schedule())
    assert packed_bytes(free, state) >= state.device_peak
    assert packed_bytes(free, state) <= sum(t.nbytes for t in free.tensors) + sum(
        n for n, _, _ in free.small
    ) + sum(max(0, w) for w in free.workspace)


def test_workspace_is_a_buffer_of_its_segment():
    hand = problem([Tensor(0, 50, (0, 3))], workspace=[0, 30, 20, 0, 90, 0])
    assert packed_bytes(hand, replay(hand, Schedule())) == 90
    less = dataclasses.replace(hand, workspace=(0, 30, 20, 0, 0, 0))
    assert packed_bytes(less, replay(less, Schedule())) == 80


def test_workspace_of_a_recomputation():
    recipe = Recipe({4: 1.0}, 70, ())
    hand = problem([Tensor(0, 50, (0, 4), recipe=recipe)])
    again = Schedule(recomputes=(Recompute(0, 4),))
    assert packed_bytes(hand, replay(hand, again)) == 120


def test_nothing():
    hand = problem([])
    assert packed_bytes(hand, replay(hand, Schedule())) == 0


CROSSES = Tensor(0, 50, (1, 4), times=3, crossing=Crossing((0, 3), (3, 6), 3))


def test_a_stack_is_a_buffer_from_loop_to_loop():
    hand = problem([CROSSES])
    packed = pack(hand, replay(hand, Schedule()))
    assert sorted(packed.buffers.tolist()) == [[50, 1, 2], [50, 4, 5], [150, 0, 6]]
    assert packed.nbytes == 200
    moved = replay(hand, Schedule((Store(0, 1, 2),), (Fetch(0, 4, 4),)))
    assert packed_bytes(hand, moved) == 50


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_never_less_than_live_bytes_where_there_are_loops(seed: int):
    free = loop_problem(seed, longest=5, tensors=4)
    state = replay(free, Schedule())
    packed = pack(free, state)
    assert packed.nbytes >= state.device_peak
    sizes = {t.value: t.stacked for t in free.tensors}
    rows = packed.buffers.tolist()
    for value, first, end in state.stacks:
        assert [sizes[value], first, end] in rows
    assert packed.nbytes <= sum(nbytes for nbytes, _, _ in rows)


def lives(
    timeline: Timeline, tensors: list[Tensor], schedule: Schedule | None = None
) -> list[list[int]]:
    """Bytes and segments of all buffers where segment 2 has this timeline."""
    hand = problem(tensors)
    hand = dataclasses.replace(hand, timelines={2: timeline})
    state = replay(hand, schedule or Schedule())
    packed = pack(hand, state)
    assert packed.nbytes >= state.device_peak
    return sorted(packed.buffers.tolist())


OPERAND, RESULT = Tensor(0, 20, (0, 2)), Tensor(1, 20, (2, 4))


def test_a_result_takes_the_place_of_an_operand():
    found = lives(Timeline((1, 1), replaced=((0, 1, 0),)), [OPERAND, RESULT])
    assert found == [[20, 0, 5]]
    # If it is still wanted, there is no place to take.
    later = Tensor(0, 20, (0, 2, 3))
    found = lives(Timeline((1, 1), replaced=((0, 1, 0),)), [later, RESULT])
    assert found == [[20, 0, 4], [20, 2, 5]]
    # And one result after the other.
    again = {
        2: Timeline((1,), replaced=((0, 1, 0),)),
        4: Timeline((1,), replaced=((1, 2, 0),)),
    }
    tensors = [OPERAND, RESULT, Tensor(2, 20, (4, 5))]
    hand = dataclasses.replace(problem(tensors), timelines=again)
    assert pack(hand, replay(hand, Schedule())).buffers.tolist() == [[20, 0, 6]]


def test_of_two_results_the_one_that_ends_first_takes_the_place():
    both = Timeline((1, 1), made=((2, 1, 2),), replaced=((0, 1, 0),), rivals=((1, 2),))
    longer, shorter = Tensor(1, 20, (2, 5)), Tensor(2, 20, (2, 4))
    assert lives(both, [OPERAND, longer, shorter]) == [[20, 0, 5], [20, 2, 6]]
    # As it was in the fragment alone, where that is the order here, too.
    longer, shorter = Tensor(2, 20, (2, 5)), Tensor(1, 20, (2, 4))
    assert lives(both, [OPERAND, shorter, longer]) == [[20, 0, 5], [20, 2, 6]]
    third = dataclasses.replace(
        both, made=((2, 1, 2), (3, 1, 2)), rivals=((1, 2), (1, 3))
    )
    ends = Tensor(1, 20, (2, 5)), Tensor(2, 20, (2, 4)), Tensor(3, 20, (2, 3))
    assert lives(third, [OPERAND, *ends]) == [[20, 0, 4], [20, 2, 5], [20, 2, 6]]
    alone = dataclasses.replace(both, rivals=())
    longer, shorter = Tensor(1, 20, (2, 5)), Tensor(2, 20, (2, 4))
    assert lives(alone, [OPERAND, longer, shorter]) == [[20, 0, 6], [20, 2, 5]]


def test_what_a_segment_needs_for_a_moment_fits_where_an_operand_was():
    # The operand is gone before the result is made, and so is the segment's own.
    short = Timeline(
        (1, 1, 1), own=((20, 1, 2, 2),), made=((1, 2, 3),), dying=((0, 1, 1),)
    )
    hand = problem([OPERAND, RESULT], workspace=[0, 0, -20, 0, 0, 0])
    hand = dataclasses.replace(hand, timelines={2: short})
    state = replay(hand, Schedule())
    assert packed_bytes(hand, state) == state.device_peak == 20
    long = dataclasses.replace(short, own=((20, 0, 3, 3),), dying=())
    hand = dataclasses.replace(hand, timelines={2: long})
    assert packed_bytes(hand, state) == 60


def test_a_recomputation_is_part_of_the_segment_or_goes_before_it():
    tensors = [Tensor(0, 20, (0, 2), recipe=Recipe({2: 1.0}, 0, ())), RESULT]
    again = Schedule(recomputes=(Recompute(0, 2),))
    # As one of the segment's own buffers it is counted once.
    joined = Timeline((1, 1), own=((20, 0, 1, 1),), made=((1, 1, 2),))
    assert lives(joined, tensors, again) == [[20, 0, 1], [20, 2, 3], [20, 2, 5]]
    apart = Timeline((1, 1), made=((1, 1, 2),))
    assert lives(apart, tensors, again) == [[20, 0, 1], [20, 2, 3], [20, 2, 5]]
    hand = dataclasses.replace(problem(tensors), timelines={2: joined})
    assert packed_bytes(hand, replay(hand, again)) == 40


def test_the_timeline_is_that_of_the_variant_that_runs():
    hand = problem([OPERAND, RESULT])
    other = Variant("other", 1.0, 0, Timeline((1, 1), replaced=((0, 1, 0),)))
    hand = dataclasses.replace(hand, variants={2: (other,)})
    assert len(pack(hand, replay(hand, Schedule())).buffers) == 2
    picked = Schedule(picks=(Pick(2, 1),))
    assert len(pack(hand, replay(hand, picked)).buffers) == 1


VALUES = st.integers(1, 9)
SPANS = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 4)).map(
    lambda at: (at[0], max(at[0], min(at[1:])), max(at[0] + 1, at[1]))
)
TIMELINES = st.builds(
    Timeline,
    st.tuples(*[st.integers(0, 9)] * 4),
    st.lists(st.tuples(VALUES, SPANS)).map(
        lambda rows: tuple((n, *s) for n, s in rows)
    ),
    st.lists(st.tuples(VALUES, st.integers(0, 3), st.integers(1, 4))).map(tuple),
    st.lists(st.tuples(VALUES, st.integers(0, 4), st.integers(1, 4))).map(tuple),
    st.lists(st.tuples(VALUES, VALUES, st.integers(0, 3))).map(tuple),
    st.lists(st.tuples(VALUES, st.integers(1, 4))).map(tuple),
)


@given(st.integers(0, 30), st.dictionaries(st.integers(0, 7), TIMELINES))
def test_whatever_happens_inside_of_segments(seed: int, found: dict[int, Timeline]):
    free = random_problem(seed)
    found = {k: timeline for k, timeline in found.items() if k < free.segments}
    free = dataclasses.replace(free, timelines=found)
    state = replay(free, Schedule())
    packed = pack(free, state)
    assert packed.nbytes >= state.device_peak
    own = sum(n for t in found.values() for n, *_ in t.own)
    rows = packed.buffers.tolist()
    assert all(first < end for _, first, end in rows)
    assert packed.nbytes <= max(sum(n for n, _, _ in rows), state.device_peak)
    assert sum(n for n, _, _ in rows) <= own + sum(
        t.nbytes for t in free.tensors
    ) + sum(n for n, _, _ in free.small) + sum(max(0, w) for w in free.workspace)
