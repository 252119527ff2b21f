"""Which of several plans for `"min"` stands."""

import dataclasses

from autotm_jax import Plan, Status
from autotm_jax.attempts import Attempts
from autotm_jax.solve import Fetch, Schedule, Store


def plan_of(use: int) -> Plan:
    """A plan that is predicted to take 1000 bytes."""
    schedule = Schedule((Store(0, 0, 1),), (Fetch(0, use, use),))
    return Plan(None, Status.OPTIMAL, schedule, device_bytes=1000)


FIRST, SECOND, THIRD = map(plan_of, (3, 4, 5))


def none() -> Plan | None:
    return None


def never() -> Plan | None:
    raise AssertionError("No other plan is asked for.")


def test_a_plan_that_takes_what_was_predicted_stands():
    assert Attempts().following(FIRST, 1030, never) is None


def test_one_that_takes_more_is_followed_by_others_until_one_does_not():
    attempts = Attempts()
    assert attempts.following(FIRST, 1100, lambda: SECOND) is SECOND
    assert attempts.following(SECOND, 1200, lambda: THIRD) is THIRD
    assert attempts.following(THIRD, 1000, never) is None


def test_in_the_end_the_one_that_took_least_stands():
    attempts = Attempts()
    assert attempts.following(FIRST, 1100, lambda: SECOND) is SECOND
    assert attempts.following(SECOND, 1200, none) is FIRST
    assert attempts.following(FIRST, 1100, never) is None


def test_where_there_is_no_other_the_first_stands():
    assert Attempts().following(FIRST, 1100, none) is None


def test_of_two_that_take_as_much_the_one_that_was_predicted_stands():
    attempts = Attempts()
    larger = dataclasses.replace(SECOND, device_bytes=1090)
    assert attempts.following(FIRST, 1100, lambda: larger) is larger
    assert attempts.following(larger, 1100, never) is None
