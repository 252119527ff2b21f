import dataclasses

import pytest

from autotm_jax.simulate import Engines, vdnn
from autotm_jax.solve import Crossing, Link, Problem, Schedule, Tensor, replay

from .problems import problem, random_problem


BYTES = 1000
LINK = Link(d2h=1e6, h2d=2e6, duplex=3e6, latency=0.0)
CONVOLUTIONS = (1, 2, 5, 6)


def chain(**changes: float) -> Problem:
    """Four segments forth and four back; 1, 2, 5 and 6 are convolutions.

    Segment k of the forward pass makes value k, of k + 1 thousand bytes, and segment
    7 - k of the backward pass reads what segment k read.
    """
    touches = [(0, 1, 6), (1, 2, 5), (2, 3, 4)]
    tensors = [Tensor(i, (i + 1) * BYTES, t) for i, t in enumerate(touches)]
    return problem(tensors, 8, link=dataclasses.replace(LINK, **changes))


def test_by_hand():
    # Value 0 leaves beside segment 1, 1 ms; value 1 beside segment 2, 2 ms, of which
    # segment 3 waits for one. Beside segment 4, value 1 is fetched for 5, 1 ms; beside
    # segment 5, value 0 for 6, 0.5 ms. No convolution reads value 2.
    outcome = vdnn(chain(), CONVOLUTIONS, backward=4)
    assert outcome.seconds == pytest.approx(8e-3 + 1e-3)
    assert outcome.out == outcome.into == 3 * BYTES
    # At segment 2: values 1 and 2. At 4: value 1 is coming, value 2 is read.
    assert outcome.fast_bytes == 5 * BYTES
    assert outcome.note == ""


def test_a_search_ends_with_the_next_convolution():
    # Segment 5 lacks nothing and convolves: 4 does not look further.
    tensors = [Tensor(0, BYTES, (0, 1, 6))]
    known = problem(tensors, 8, link=LINK)
    beside_five = vdnn(known, CONVOLUTIONS, backward=4)
    assert beside_five.fast_bytes == BYTES
    held = Tensor(1, BYTES, (4, 5))  # there at 4 and 5
    crowded = dataclasses.replace(known, tensors=(*tensors, held))
    assert vdnn(crowded, CONVOLUTIONS, backward=4).fast_bytes == 2 * BYTES
    # If 5 does not convolve, it is fetched beside 4, where value 1 is, too.
    early = dataclasses.replace(held, touches=(4, 4))
    other = dataclasses.replace(known, tensors=(*tensors, early))
    assert vdnn(other, CONVOLUTIONS, backward=4).fast_bytes == BYTES
    assert vdnn(other, (1, 2, 6), backward=4).fast_bytes == 2 * BYTES


def test_what_nobody_fetched_is_fetched_at_once():
    # The first backward segment needs it: there is none before that to fetch beside.
    known = problem([Tensor(0, BYTES, (0, 1, 4))], 8, link=LINK)
    outcome = vdnn(known, CONVOLUTIONS, backward=4)
    assert outcome.seconds == pytest.approx(8e-3 + 0.5e-3)
    assert outcome.into == outcome.out == BYTES


def test_the_last_segment_that_reads_it_lets_it_go():
    # Segment 3 reads value 0 again, which does not convolve.
    known = problem([Tensor(0, BYTES, (0, 1, 3, 6))], 8, link=LINK)
    away = vdnn(known, CONVOLUTIONS, backward=4)
    assert away.out == BYTES and away.seconds == pytest.approx(8e-3)
    # And what is read again right after that stays.
    short = problem([Tensor(0, BYTES, (0, 1, 3, 4))], 8, link=LINK)
    assert vdnn(short, CONVOLUTIONS, backward=4).out == 0


def test_what_does_not_move():
    crossing = Crossing((0, 2), (5, 7), 2)
    kinds = [
        {"movable": False},
        {"times": 2, "crossing": crossing},
        {"touches": (0, 3, 6)},
        {"touches": (0, 1, 2)},
    ]
    for changes in kinds:
        tensor = dataclasses.replace(Tensor(0, BYTES, (0, 1, 6)), **changes)
        known = problem([tensor], 8, link=LINK)
        outcome = vdnn(known, CONVOLUTIONS, backward=4)
        assert (outcome.out, outcome.into) == (0, 0)
        assert outcome.fast_bytes == replay(known, Schedule()).device_peak


def test_copies_end_with_their_segment():
    # One engine or two: no two copies are beside the same segment.
    known = chain()
    slow = Engines(0.1e6, 0.2e6)
    outcome = vdnn(known, CONVOLUTIONS, 4, slow)
    # 10 and 20 ms out, 10 and 5 ms back, each instead of a segment.
    assert outcome.seconds == pytest.approx(4e-3 + 45e-3)
    one = dataclasses.replace(slow, one_engine=True)
    assert vdnn(known, CONVOLUTIONS, 4, one).seconds == pytest.approx(49e-3)


@pytest.mark.parametrize("seed", range(40))
def test_properties(seed: int):
    known = random_problem(seed)
    count = known.segments
    everything = range(count)
    compute = sum(known.compute)
    outcome = vdnn(known, everything, count // 2)
    assert outcome.out == outcome.into
    link = known.link
    alone = outcome.out * (1 / link.d2h + 1 / link.h2d) + 2 * link.latency * len(
        known.tensors
    )
    assert compute - 1e-12 <= outcome.seconds <= compute + alone + 1e-12
    assert outcome.fast_bytes <= replay(known, Schedule()).device_peak
    nothing = vdnn(known, (), count // 2)
    assert nothing.seconds == pytest.approx(compute) and nothing.out == 0
    free = vdnn(known, everything, count // 2, Engines(1e30, 1e30))
    assert free.seconds == pytest.approx(compute) and free.out == outcome.out
    loud = Engines(link.d2h, link.h2d, link.duplex, link.latency, 1.0)
    assert vdnn(known, everything, count // 2, loud).seconds >= outcome.seconds - 1e-12


def test_a_limit_that_is_not_kept_is_noted():
    known = dataclasses.replace(chain(), device_limit=4000)
    outcome = vdnn(known, CONVOLUTIONS, backward=4)
    assert outcome.note == "It needs 5000 device bytes, over the limit of 4000."
