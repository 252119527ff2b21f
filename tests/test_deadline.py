import time

from autotm_jax.solve import Deadline


def test_what_is_left_and_what_was_taken_are_the_limit():
    deadline = Deadline(100.0)
    time.sleep(0.05)
    before = deadline.taken()
    assert 0.05 <= before < 50.0
    assert 0.0 < 100.0 - deadline.left() - before < 1.0


def test_nothing_is_left_once_it_has_passed():
    for seconds in (0.0, -1.0):
        assert Deadline(seconds).left() == 0.0


def test_a_pause_does_not_count():
    deadline = Deadline(100.0)
    with deadline.paused():
        time.sleep(0.2)
    assert deadline.taken() < 0.15
    assert deadline.left() > 99.85
