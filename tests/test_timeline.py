import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax.timeline import Span, Timeline, timeline_of


def test_what_is_whose():
    # Kernels 3, 4 and 5 are the segment's. 60 is read by 3 and overwritten by 4.
    spans = [
        Span(10, 0, 4, is_operand=True),
        Span(20, 1, 9, is_operand=True),
        Span(30, 3, 5, is_operand=False),
        Span(40, 5, 8, is_operand=False),
        Span(60, 2, 8, is_operand=True),
        Span(70, 7, 9, is_operand=False),
    ]
    assert timeline_of(spans, 3, 6, surviving=[20]) == Timeline(
        moments=3,
        own=((30, 0, 2),),
        made=((40, 2),),
        dying=((10, 1),),
        replaced=(60,),
    )


def test_of_equal_operands_as_many_survive_as_are_said_to():
    spans = [Span(20, i, 9, is_operand=True) for i in range(3)]
    assert timeline_of(spans, 4, 6, surviving=[20]).replaced == (20, 20)
    assert timeline_of(spans, 4, 6, surviving=[20] * 3).replaced == ()


def test_what_is_small_is_left_out():
    spans = [Span(10_000, 0, 2, False), Span(9, 0, 1, False), Span(10, 1, 2, False)]
    found = timeline_of(spans, 0, 2, surviving=[])
    assert found.own == ((10_000, 0, 1),)
    assert found.moments == 1


def test_a_segment_without_buffers_has_a_moment():
    assert timeline_of([], 4, 6, surviving=[]) == Timeline(1)


KERNELS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
SPANS = st.lists(
    st.builds(
        lambda nbytes, life, is_operand: Span(nbytes, life[0], life[1] + 1, is_operand),
        st.integers(1, 99),
        KERNELS,
        st.booleans(),
    )
)


@given(SPANS, KERNELS)
def test_every_buffer_of_the_segment_is_in_it_once(
    spans: list[Span], segment: list[int]
):
    first, end = segment[0], segment[1] + 1
    found = timeline_of(spans, first, end, surviving=[])
    least = sum(s.nbytes for s in spans) / 1000
    there = [s for s in spans if s.first < end and s.end > first]
    there = [s.nbytes for s in there if s.nbytes >= least]
    rows = found.own, found.made, found.dying
    sizes = [row[0] for part in rows for row in part]
    assert sorted([*sizes, *found.replaced]) == sorted(there)
    for _, a, b in found.own:
        assert 0 <= a < b <= found.moments
    assert all(0 <= a < found.moments for _, a in found.made)
    assert all(0 < b <= found.moments for _, b in found.dying)


@given(SPANS, KERNELS)
def test_it_is_written_and_read(spans: list[Span], segment: list[int]):
    found = timeline_of(spans, segment[0], segment[1] + 1, surviving=[])
    entry = json.loads(json.dumps(dataclasses.asdict(found)))
    assert Timeline.of(entry) == found


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"moments": "many", "own": [], "made": [], "dying": [], "replaced": []},
        {"moments": 1, "own": [[1, 2]], "made": [], "dying": [], "replaced": []},
    ],
)
def test_anything_else_is_refused(entry: object):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Timeline.of(entry)
