import dataclasses
import random
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import pytest

from autotm_jax.simulate import managed_memory
from autotm_jax.solve import Carried, Link, Problem, Schedule, Tensor, replay

from .problems import KIB, loop_problem, problem, random_problem, state_problem


PAGE = 4 * KIB
LINK = Link(d2h=4e6, h2d=8e6, duplex=12e6, latency=0.0)


def pages_of(nbytes: float) -> int:
    return -int(-nbytes // PAGE)


def page_by_page(problem: Problem, capacity: int) -> tuple[int, int]:
    """Pages fetched and written in the second of two steps, one page at a time."""
    there: OrderedDict[tuple[int, int], bool] = (
        OrderedDict()
    )  # whether the host lacks it
    on_host: set[tuple[int, int]] = set()
    counts = [0, 0]

    def touch(key: int, count: int, writes: bool) -> None:
        for number in range(count):
            page = key, number
            if page in there:
                there.move_to_end(page)
            else:
                counts[0] += page in on_host
                if len(there) == capacity:
                    victim, lacks = there.popitem(last=False)
                    counts[1] += lacks
                    on_host.add(victim)
                there[page] = False
            there[page] |= writes
            if writes:
                on_host.discard(page)

    for i, tensor in enumerate(problem.tensors):
        if tensor.carried is not None:
            on_host.update((i, p) for p in range(pages_of(tensor.nbytes)))
    for _ in range(2):
        counts[:] = 0, 0
        for k in range(problem.segments):
            space = problem.resident[k] + max(0, problem.workspace[k])
            touch(-1, pages_of(space), True)
            dead = {-1}
            for is_making in (False, True):
                for i, tensor in enumerate(problem.tensors):
                    made = tensor.touches[:1]
                    if tensor.carried is not None:
                        made = tensor.carried.made
                    uses = {*tensor.touches, *made}
                    if k in uses and (k in made[:1]) is is_making:
                        touch(i, pages_of(tensor.stacked), is_making)
                    if tensor.carried is None and k == max(uses):
                        dead.add(i)
            for page in [p for p in there if p[0] in dead]:
                del there[page]
            on_host -= {p for p in on_host if p[0] in dead}
    return counts[0], counts[1]


KINDS = [random_problem, state_problem, loop_problem]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(40))
def test_it_moves_what_moves_page_by_page(kind: Callable[[int], Problem], seed: int):
    known = kind(seed)
    peak = pages_of(replay(known, Schedule()).device_peak)
    for capacity in random.Random(seed).sample(range(1, peak + 8), 5):
        limited = dataclasses.replace(known, device_limit=capacity * PAGE)
        outcome = managed_memory(limited, page=PAGE)
        fetched, written = page_by_page(known, capacity)
        assert (outcome.into, outcome.out) == (fetched * PAGE, written * PAGE), capacity
        assert outcome.fast_bytes <= capacity * PAGE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_more_memory_is_never_slower(kind: Callable[[int], Problem], seed: int):
    # LRU keeps with more pages all that it keeps with fewer.
    known = kind(seed)
    limits = [PAGE * n for n in (1, 3, 6, 10, 15, 25, 40, 80, 200)]
    bounded = [dataclasses.replace(known, device_limit=limit) for limit in limits]
    outcomes = [managed_memory(each, page=PAGE) for each in bounded]
    for less, more in pairwise(outcomes):
        assert more.seconds <= less.seconds
        assert more.into <= less.into and more.out <= less.out
        assert more.fast_read >= less.fast_read


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_bytes_are_conserved(kind: Callable[[int], Problem], seed: int):
    # A value is made once in a step, and so is a page of it written at most once; it
    # comes back at most once for each of its touches.
    known = dataclasses.replace(kind(seed), small=(), device_limit=4 * PAGE)
    known = dataclasses.replace(known, workspace=(0,) * known.segments)
    outcome = managed_memory(known, page=PAGE)
    sizes = [PAGE * pages_of(t.stacked) for t in known.tensors]
    uses = [{*t.touches, *(t.carried.made if t.carried else ())} for t in known.tensors]
    assert outcome.out <= sum(sizes)
    assert outcome.into <= sum(n * len(u) for n, u in zip(sizes, uses, strict=True))


def test_memory_that_holds_everything_costs_nothing():
    for seed in range(20):
        outcome = managed_memory(random_problem(seed), page=PAGE)
        assert outcome.seconds == pytest.approx(sum(random_problem(seed).compute))
        assert (outcome.out, outcome.into, outcome.fast_read) == (0, 0, 1.0)


def test_by_hand():
    # Room for three pages, and two values of two pages each.
    tensors = [Tensor(0, 2 * PAGE, (0, 2)), Tensor(1, 2 * PAGE, (1, 3))]
    known = problem(tensors, 4, link=LINK, device_limit=3.5 * PAGE)
    outcome = managed_memory(known, page=PAGE, migration=0.5)
    # Segment 1 evicts page 0 of value 0; at segment 2, that one comes back and evicts
    # page 1 of its own, which comes back and evicts page 0 of value 1. That one returns
    # at segment 3, into the room that value 0 has left.
    assert outcome.out == 3 * PAGE and outcome.into == 3 * PAGE
    seconds = 4e-3 + 2 * (3 * PAGE / 4e6 + 3 * PAGE / 8e6)
    assert outcome.seconds == pytest.approx(seconds)
    assert outcome.fast_bytes == 3 * PAGE
    assert outcome.fast_read == pytest.approx(5 / 8)


def test_state_is_there_from_the_step_before():
    state = Tensor(0, 2 * PAGE, (0,), carried=Carried((2,), 3))
    known = problem([state], 3, link=LINK, device_limit=2 * PAGE)
    assert managed_memory(known, page=PAGE).into == 0
    # Another value takes its place in between, and it is written in every step.
    other = Tensor(1, 2 * PAGE, (1, 1))
    crowded = dataclasses.replace(known, tensors=(state, other))
    outcome = managed_memory(crowded, page=PAGE)
    # Of what was made, it is gone when it is written again: that is a fault, too.
    assert outcome.into == 2 * PAGE and outcome.out == 2 * PAGE


def test_pages_are_not_gone_through_one_by_one():
    # A hundred thousand blocks, or a hundred million pages that hold the same bytes.
    tensors = [Tensor(i, 250 * 2**21, (i, i + 1, 799 - i)) for i in range(398)]
    known = problem(tensors, 800, link=LINK, device_limit=40_000 * 2**21)
    outcome = managed_memory(known)
    assert outcome.into > 0
    assert managed_memory(known, page=2**11) == outcome


def test_less_than_a_page_is_an_error():
    with pytest.raises(ValueError) as caught:
        managed_memory(problem([], 2, device_limit=100))
    assert str(caught.value) == (
        "The device limit is 100 bytes, less than a page of 2097152."
    )


def test_what_moves_nothing_is_an_error():
    known = problem([], 2)
    with pytest.raises(ValueError) as caught:
        managed_memory(known, page=0)
    assert str(caught.value) == "A page of 0 bytes holds nothing: give 1 or more."
    with pytest.raises(ValueError) as caught:
        managed_memory(known, migration=0)
    assert str(caught.value) == (
        "Migrations reach 0 of the link's rate: give a number greater than zero."
    )
