"""What a schedule does at each cut, in the step and in its loops."""

from autotm_jax.emit.timetable import Actions, Timetable
from autotm_jax.solve import Fetch, Recompute, Schedule, Store, Stream

from .loop_plans import crossing
from .test_loop_values import planned


PROGRAM, PROBLEM = planned("linear_solve")
# Made in segments 1 to 3 of the first loop, read in 5 to 8 of the second.
LOOP, OTHER = PROGRAM.nest.ranges[0], PROGRAM.nest.ranges[1]
VALUES = [t.value for t in crossing(PROBLEM)]
# Made by segment 1 and read by 3, and in the other loop by 5.
VALUE = next(t.value for t in crossing(PROBLEM) if t.touches == (1, 3, 5))
# Made and read in the second loop.
INNER = next(
    v
    for v, at in PROGRAM.touches().items()
    if PROGRAM.values[v].loop == 1 and at[-1] > at[0]
)
OUTSIDE = next(
    v for v, at in PROGRAM.touches().items() if PROGRAM.values[v].loop is None
)


def timetable(*items: Store | Fetch | Recompute | Stream) -> Timetable:
    """Of a schedule of these."""

    def of(kind: type) -> tuple:
        return tuple(i for i in items if isinstance(i, kind))

    schedule = Schedule(of(Store), of(Fetch), of(Recompute), of(Stream))
    return Timetable(PROGRAM, schedule)


def test_the_program_is_as_these_tests_think():
    assert (LOOP, OTHER) == ((1, 4), (5, 9))


def test_with_nothing_planned_everything_that_crosses_is_stacked():
    table = timetable()
    assert sorted(table.kept(0)) == sorted(VALUES)
    assert table.kept(1) == table.moved(0) == table.ahead(1) == []
    assert all(
        table.at(scope, cut) == Actions() for scope in (None, 0, 1) for cut in range(10)
    )


def test_a_value_on_the_host_is_not_stacked_on_the_device():
    table = timetable(Store(VALUE, 3, 4), Fetch(VALUE, 5, 5))
    assert table.moved(0) == [VALUE]
    assert sorted(table.kept(0)) == sorted(set(VALUES) - {VALUE})
    # It is there at the end of the iteration at the latest: nothing waits for it.
    assert table.at(0, 4) == Actions(begin_store=[VALUE])
    assert table.at(1, 5) == Actions(fetch_at=[VALUE])
    assert table.at(None, 5) == Actions()


def test_a_value_on_the_host_that_arrives_later_is_stacked_as_well():
    # What is fetched for a later use is kept from the first use until then, but to
    # the first use it goes by a stack.
    table = timetable(Store(VALUE, 3, 4), Fetch(VALUE, 7, 8))
    assert table.moved(0) == [VALUE]
    assert VALUE in table.kept(0)


def test_a_store_that_begins_early_in_an_iteration():
    table = timetable(Store(VALUE, 1, 4))
    assert table.at(0, 2) == Actions(begin_store=[VALUE])
    assert table.at(0, 4) == Actions()


def test_a_fetch_within_the_iteration():
    table = timetable(Store(VALUE, 3, 4), Fetch(VALUE, 5, 7), Fetch(VALUE, 5, 8, 7))
    assert table.at(1, 5) == Actions(begin_fetch=[VALUE, VALUE])
    # That one is finished before it is wanted.
    assert table.at(1, 7) == Actions(end_fetch=[VALUE])
    assert table.ahead(1) == []


def test_a_fetch_for_the_next_iteration():
    table = timetable(Store(VALUE, 3, 4), Fetch(VALUE, 6, 5, 9))
    assert table.at(1, 6) == Actions(fetch_ahead=[VALUE])
    assert table.at(1, 5) == table.at(1, 9) == Actions()
    assert table.ahead(1) == [VALUE]
    assert table.ahead(0) == []


def test_what_is_computed_again_in_the_other_loop_is_not_stacked():
    table = timetable(Recompute(VALUE, 5))
    assert table.at(1, 5) == Actions(again=[VALUE])
    assert table.again[5] == [VALUE]
    # For what it is computed from there is a stack, as before.
    assert VALUE not in table.kept(0)
    reads = PROGRAM.recomputations[VALUE].reads
    assert {v for v in reads if PROGRAM.values[v].loop == 0} <= {*table.kept(0)}


def test_what_is_computed_again_is_in_program_order():
    again = [v for v in PROGRAM.recomputations if PROGRAM.values[v].loop == 0]
    assert len(again) > 1
    table = timetable(*(Recompute(v, 5) for v in sorted(again, reverse=True)))
    producers = [PROGRAM.values[v].producer for v in table.at(1, 5).again]
    assert producers == sorted(p for p in producers if p is not None)


def test_copies_outside_of_loops_and_within_one_are_no_stacks():
    table = timetable(Store(OUTSIDE, 0, 1), Store(INNER, 5, 6), Fetch(INNER, 7, 8))
    assert table.moved(0) == table.moved(1) == []
    assert table.at(None, 1) == Actions(store_at=[OUTSIDE])
    assert table.at(1, 6) == Actions(store_at=[INNER])
    assert table.at(1, 7) == Actions(begin_fetch=[INNER])


def test_what_is_streamed_is_fetched_before_and_stored_after():
    touches = PROGRAM.touches()[INNER]
    table = timetable(Stream(INNER, touches[0]), Stream(INNER, touches[-1]))
    assert table.at(1, touches[0] + 1).store_at == [INNER]
    assert table.at(1, touches[-1]).fetch_at == [INNER]


def test_what_comes_back_after_a_cut():
    table = timetable(Store(INNER, 5, 6), Fetch(INNER, 7, 8), Recompute(VALUE, 5))
    assert table.returning(1, 7) == {INNER}
    assert table.returning(1, 8) == table.returning(0, 2) == set()
    assert table.returning(1, 4) == {INNER, VALUE}
