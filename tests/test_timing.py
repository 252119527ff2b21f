import itertools
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax.profile.timing import ClockError, Protocol, Timing, measure


class Stopwatch:
    """A clock that only advances when something runs, by given seconds per call."""

    def __init__(self, *durations: float):
        self.now = 0.0
        self.durations = itertools.cycle(durations)
        self.calls: list[Any] = []

    def __call__(self) -> float:
        return self.now

    def run(self, *inputs: Any) -> None:
        self.calls.append(inputs)
        self.now += next(self.durations)


def timed(*durations: float, **rules: Any) -> tuple[Timing, Stopwatch]:
    clock = Stopwatch(*durations)
    found = measure(clock.run, [(0,), (1,), (2,)], Protocol(**rules), clock)
    return found, clock


def test_a_steady_time():
    found, clock = timed(0.5)
    assert found == Timing(0.5, 0.0, Protocol().fewest, 0, 1)
    # Two calls to warm up and one to see how long a call is.
    assert len(clock.calls) == Protocol().fewest + 3


def test_short_calls_are_taken_together():
    found, _ = timed(1e-5, sample_seconds=1e-3)
    assert found.seconds == pytest.approx(1e-5)
    assert found.calls == 100


def test_inputs_rotate():
    _, clock = timed(1e-3, sample_seconds=6e-3)
    assert clock.calls[3:9] == [(0,), (1,), (2,), (0,), (1,), (2,)]


def test_outliers_are_counted_and_left_out():
    slow = [1.0] * 9 + [50.0]
    found, _ = timed(*slow, fewest=20, most=20)
    assert found.seconds == 1.0
    assert (found.samples, found.outliers) == (18, 2)


def test_noise_takes_more_samples():
    noise = [1.0, 1.4, 0.8, 1.2, 0.7, 1.3]
    found, _ = timed(*noise, most=40)
    assert found.samples + found.outliers == 40
    found, _ = timed(*noise, most=400, precision=0.08)
    assert 7 < found.samples + found.outliers < 400


def test_the_time_limit_ends_it():
    noise = [1.0, 1.4, 0.8, 1.2, 0.7, 1.3]
    found, _ = timed(*noise, time_limit=0.0, most=1000)
    assert found.samples + found.outliers == 1


def test_a_long_call_is_not_repeated_for_its_own_sake():
    rules = Protocol(time_limit=0.05)
    calls: list[float] = []

    def slow() -> None:
        calls.append(1)
        time.sleep(0.06)

    found = measure(slow, [()], rules)
    assert found.seconds >= 0.06
    # One to begin with and one sample.
    assert len(calls) == 2


def test_a_clock_that_jumps_back_now_and_then():
    found, _ = timed(1.0, 1.0, 1.0, -5.0, fewest=12)
    assert found.seconds == 1.0


def test_a_clock_that_stands_still():
    text = "The clock did not advance in 31 samples, so no time was taken."
    with pytest.raises(ClockError, match=text):
        timed(0.0)


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=8), st.floats(1e-6, 10))
def test_the_median_lies_among_the_samples(durations: list[float], scale: float):
    found, _ = timed(*(d * scale for d in durations), sample_seconds=0.0)
    assert 0.9 * scale <= found.seconds * (1 + 1e-9)
    assert found.seconds <= 1.1 * scale * (1 + 1e-9)
    assert found.spread <= 0.2
