import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax.solve import (
    Crossing,
    Fetch,
    Recipe,
    Recompute,
    Schedule,
    Store,
    Tensor,
    packed_bytes,
    replay,
)
from autotm_jax.solve.heap import pack

from .problems import KIB, loop_problem, problem, random_problem


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


def in_place(operand: int, saved: int, result: int = 0) -> list[list[int]]:
    """The buffers where segment 2 reads an operand for the last time and saves bytes.

    It makes a result, of the operand's size if no other is given. In pages.
    """
    page = 4 * KIB
    tensors = [
        Tensor(0, operand * page, (0, 2)),
        Tensor(1, (result or operand) * page, (2, 4)),
    ]
    hand = problem(tensors, workspace=[0, 0, -saved * page, 0, 0, 0])
    packed = pack(hand, replay(hand, Schedule()))
    assert packed.nbytes >= replay(hand, Schedule()).device_peak
    return sorted([nbytes // page, a, b] for nbytes, a, b in packed.buffers.tolist())


def test_a_result_takes_the_place_of_an_operand_that_dies():
    # The operand is gone when segment 2 begins.
    assert in_place(20, saved=20) == [[20, 0, 2], [20, 2, 5]]
    # A smaller operand, too, where that is saved.
    assert in_place(20, saved=20, result=30) == [[20, 0, 2], [30, 2, 5]]


def test_a_segment_works_in_what_it_saves_less_than_the_operand():
    # 20 pages are overwritten and 15 saved: five are a buffer of the segment's own.
    assert in_place(20, saved=15) == [[5, 2, 3], [20, 0, 2], [20, 2, 5]]
    # It does not overwrite what is more than twice that, nor what has another size.
    assert in_place(20, saved=9) == [[20, 0, 3], [20, 2, 5]]
    assert in_place(20, saved=15, result=21) == [[20, 0, 3], [21, 2, 5]]


def test_no_result_takes_the_place_of_a_stack():
    # The stack dies with the last segment of its loop, which saves as much.
    page = 4 * KIB
    crossing = Crossing((0, 2), (2, 4), 2)
    tensors = [
        Tensor(0, 15 * page, (0, 3), times=2, crossing=crossing),
        Tensor(1, 20 * page, (2, 3), times=2),
        Tensor(2, 20 * page, (3, 5)),
    ]
    hand = problem(tensors, workspace=[0, 0, 0, -30 * page, 0, 0])
    rows = pack(hand, replay(hand, Schedule())).buffers.tolist()
    assert [30 * page, 0, 4] in rows
    assert [20 * page, 2, 3] in rows
