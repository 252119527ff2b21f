"""When a tensor may leave and come back, where there are loops."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax.solve import Crossing, Fetch, Link, Schedule, Store, Tensor, replay
from autotm_jax.solve.problem import first_copy

from .problems import problem


# Loops over segments 1-4 and 6-9, of three iterations.
CROSSING = Crossing((1, 5), (6, 10), 3)
CROSSES = Tensor(0, 10, (1, 3, 7, 9), times=3, crossing=CROSSING)
OUTSIDE = Tensor(1, 10, (0, 11), closed=((1, 5), (6, 10)))
READ_IN_THE_SECOND = Tensor(2, 10, (0, 6, 7, 8, 9), closed=((1, 5), (6, 10)))


def test_what_crosses_is_kept_once_per_iteration():
    assert CROSSES.stacked == 30
    assert OUTSIDE.stacked == 10
    assert CROSSING.span == (1, 10)


def test_from_one_loop_to_the_other():
    assert CROSSES.crosses(3, 7)
    assert CROSSES.crosses(1, 9)
    assert not CROSSES.crosses(1, 3)
    assert not CROSSES.crosses(7, 9)
    assert not OUTSIDE.crosses(0, 11)


def test_gaps_are_long_or_lead_from_loop_to_loop():
    assert CROSSES.gaps(CROSSES.touches, 2) == [(3, 7), (7, 9)]
    assert CROSSES.gaps(CROSSES.touches, 3) == [(3, 7)]
    # One loop right after the other.
    near = Tensor(0, 10, (0, 3, 4), times=3, crossing=Crossing((0, 4), (4, 6), 3))
    assert near.gaps(near.touches, 3) == [(3, 4)]
    assert OUTSIDE.gaps((0, 1, 11), 3) == [(1, 11)]
    assert OUTSIDE.gaps((0, 3), 3) == [(0, 3)]
    assert OUTSIDE.gaps((0, 3), 4) == []


def test_nothing_happens_between_the_segments_of_a_loop_to_what_is_not_in_it():
    assert [k for k in range(12) if OUTSIDE.is_open(k)] == [0, 1, 5, 6, 10, 11]
    assert all(map(CROSSES.is_open, range(12)))


@pytest.mark.parametrize(
    ("tensor", "a", "b", "cut", "stored", "fetched"),
    [
        # A store goes on to the end of the loop, a fetch begins before it.
        (OUTSIDE, 0, 11, 3, 5, 1),
        (OUTSIDE, 0, 11, 5, 5, 5),
        (OUTSIDE, 0, 11, 8, 10, 6),
        (OUTSIDE, 0, 11, 11, 11, 11),
        (READ_IN_THE_SECOND, 0, 6, 4, 5, 1),
        # Stored in the one loop, fetched in the other.
        (CROSSES, 3, 7, 4, 4, 6),
        (CROSSES, 3, 7, 6, 5, 6),
        (CROSSES, 3, 7, 7, 5, 7),
        # Back in the second loop.
        (CROSSES, 7, 9, 8, 8, 8),
        # Never before it is made.
        (CROSSES, 3, 7, 2, 4, 6),
    ],
)
def test_the_nearest_cut(
    tensor: Tensor, a: int, b: int, cut: int, stored: int, fetched: int
):
    assert tensor.stored_by(a, b, cut) == stored
    assert tensor.fetched_from(a, b, cut) == fetched


def test_a_way_there_and_back():
    assert CROSSES.trip(3, 7, 4, 6) == (Store(0, 3, 4), Fetch(0, 6, 7))
    assert CROSSES.trip(3, 7, 6, 6) == (Store(0, 3, 5), Fetch(0, 6, 7))
    assert OUTSIDE.trip(0, 11, 5, 6) == (Store(1, 0, 5), Fetch(1, 6, 11))
    # Where the loop is in the middle of both copies, everything waits for them.
    assert OUTSIDE.trip(0, 11, 2, 4) == (Store(1, 0, 1), Fetch(1, 11, 11))
    plain = Tensor(3, 10, (0, 5))
    assert plain.trip(0, 5, 2, 4) == (Store(3, 0, 2), Fetch(3, 4, 5))
    assert plain.trip(0, 5, 3, 2) == (Store(3, 0, 1), Fetch(3, 5, 5))


@st.composite
def gaps(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    """A tensor in one of the places that loops make, and a gap of it."""
    made, middle, read = (draw(st.integers(n, 4)) for n in (1, 0, 1))
    first = draw(st.integers(0, 2))
    loops = (first, first + made), (first + made + middle, first + made + middle + read)
    crossing = Crossing(*loops, 3)
    count = crossing.read[1] + 2
    if draw(st.booleans()):
        a = draw(st.integers(*_inside(crossing.made)))
        b = draw(st.integers(*_inside(crossing.read)))
        return Tensor(0, 10, (a, b), times=3, crossing=crossing), a, b
    outer = [k for k in range(count) if not any(x <= k < y for x, y in loops)]
    ends = outer + [x for x, _ in loops] + [y - 1 for _, y in loops]
    a, b = sorted(draw(st.lists(st.sampled_from(ends), min_size=2, max_size=2)))
    touches = {a, b}
    for x, y in loops:
        touches |= set(range(x, y)) if touches & set(range(x, y)) else set()
    tensor = Tensor(0, 10, tuple(sorted(touches)), closed=loops)
    pairs = [(x, y) for x, y in itertools.pairwise(tensor.touches) if y - x > 1]
    if not pairs:
        return Tensor(0, 10, (0, count - 1)), 0, count - 1
    return tensor, *draw(st.sampled_from(pairs))


def _inside(span: tuple[int, int]) -> tuple[int, int]:
    return span[0], span[1] - 1


@given(gaps(), st.integers(0, 14), st.integers(0, 14))
def test_every_way_there_and_back_is_sound(
    gap: tuple[Tensor, int, int], done: int, start: int
):
    tensor, a, b = gap
    end = tensor.touches[-1] if tensor.crossing is None else tensor.crossing.read[1]
    done, start = min(max(done, a + 1), b), min(max(start, a + 1), b)
    store, fetch = tensor.trip(a, b, done, start)
    state = replay(problem([tensor], end + 3), Schedule((store,), (fetch,)))
    assert state.faults == ()


def test_the_first_slice_is_fetched_before_the_loop():
    link = Link(d2h=10.0, h2d=5.0, duplex=10.0, latency=0.25)
    assert first_copy(CROSSES, link) == 0.25 + 10 / 5.0
    # In a loop that itself runs twice.
    twice = Tensor(0, 10, (1, 7), times=6, crossing=CROSSING)
    assert first_copy(twice, link) == 2 * (0.25 + 10 / 5.0)
