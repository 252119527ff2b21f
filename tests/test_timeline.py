import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax.timeline import Span, Timeline, timeline_of


def test_what_is_whose():
    # Ticks 3, 4 and 5 are the segment's. Operand 2 is overwritten at 4.
    spans = [
        Span(10, 0, 4, 4, operand=0),
        Span(20, 1, 9, 9, operand=1),
        Span(30, 3, 4, 5),
        Span(40, 5, 8, 8, result=0),
        Span(60, 2, 4, 8, operand=2, result=1),
        Span(70, 7, 9, 9),
    ]
    found = timeline_of(spans, 3, 6, surviving={1: 5})
    assert found == Timeline(
        ticks=(1, 1, 1),
        own=((30, 0, 1, 2),),
        made=((0, 2, 3),),
        dying=((0, 1, 1),),
        replaced=((2, 1, 1),),
        read=((1, 2),),
    )
    assert found.moments == 3
    assert found.named([7, 8, 9], [5, 6]) == Timeline(
        ticks=(1, 1, 1),
        own=((30, 0, 1, 2),),
        made=((5, 2, 3),),
        dying=((7, 1, 1),),
        replaced=((9, 6, 1),),
        read=((8, 2),),
    )


def test_which_result_might_take_the_place_instead():
    spans = [
        Span(10, 0, 4, 8, operand=0, result=0, maker="both"),
        Span(10, 5, 9, 9, result=1, maker="both"),
        Span(11, 5, 9, 9, result=2, maker="both"),
        Span(10, 5, 9, 9, result=3, maker="another"),
    ]
    found = timeline_of(spans, 3, 6, surviving={})
    assert found.rivals == ((0, 1),)
    assert found.named([9], [5, 6, 7, 8]).rivals == ((5, 6),)
    # What began before, and did not take the place, cannot.
    before = [spans[0], dataclasses.replace(spans[1], first=3)]
    assert timeline_of(before, 3, 6, surviving={}).rivals == ()
    unknown = [dataclasses.replace(span, maker=None) for span in spans]
    assert timeline_of(unknown, 3, 6, surviving={}).rivals == ()


def test_what_is_small_is_left_out():
    spans = [Span(10_000, 0, 2, 2), Span(9, 0, 1, 1), Span(10, 1, 2, 2)]
    found = timeline_of(spans, 0, 2, surviving={})
    assert found.own == ((10_000, 0, 1, 1),)
    assert found.ticks == (2,)


def test_a_segment_without_buffers_has_a_moment():
    found = timeline_of([], 4, 6, surviving={})
    assert found == Timeline(ticks=(2,))
    assert Timeline().moments == 1


TICKS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
SIZES = st.lists(st.tuples(st.integers(1, 99), TICKS, st.booleans(), st.booleans()))


@st.composite
def spans_of(draw: st.DrawFn) -> list[Span]:
    """Buffers, of which some hold an operand, a result, or one after the other."""
    return [
        Span(
            nbytes,
            first,
            (first + last + 2) // 2,
            last + 1,
            i if is_operand else None,
            i if made else None,
        )
        for i, (nbytes, (first, last), is_operand, made) in enumerate(draw(SIZES))
    ]


SPANS = spans_of()


@given(SPANS, TICKS)
def test_every_buffer_of_the_segment_is_in_it_once(
    spans: list[Span], segment: list[int]
):
    first, end = segment[0], segment[1] + 1
    found = timeline_of(spans, first, end, surviving={})
    least = sum(s.nbytes for s in spans) / 1000
    there = [s for s in spans if s.first < end and s.end > first]
    there = [s for s in there if s.nbytes >= least]
    nobody = [s.nbytes for s in there if s.operand is None and s.result is None]
    assert sorted(n for n, *_ in found.own) == sorted(nobody)
    operands = [*(i for i, *_ in found.dying), *(i for i, *_ in found.replaced)]
    assert sorted(operands) == [s.operand for s in there if s.operand is not None]
    results = [*(i for i, *_ in found.made), *(i for _, i, _ in found.replaced)]
    assert sorted(results) == [s.result for s in there if s.result is not None]
    for _, a, handed, b in found.own:
        assert 0 <= a <= handed <= b <= found.moments
        assert a < b
    assert all(0 <= a <= h <= found.moments for _, a, h in found.made)
    assert all(0 <= h <= b and 0 < b <= found.moments for _, h, b in found.dying)
    assert sum(found.ticks) == end - first


@given(SPANS, TICKS)
def test_it_is_written_and_read(spans: list[Span], segment: list[int]):
    found = timeline_of(spans, segment[0], segment[1] + 1, surviving={0: 1})
    entry = json.loads(json.dumps(dataclasses.asdict(found)))
    assert Timeline.of(entry) == found


EMPTY = dataclasses.asdict(Timeline())


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {**EMPTY, "ticks": ["many"]},
        {**EMPTY, "own": [[1, 2, 3]]},
    ],
)
def test_anything_else_is_refused(entry: object):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Timeline.of(entry)
