"""2LM: fast memory as a cache of slow memory."""

import dataclasses
import random
from typing import Any

import pytest

from autotm_jax.simulate import Cache, Traffic, all_fast, memory_mode
from autotm_jax.simulate.memory_mode import _addresses

from .two_memories import ROUND, chain, step


def test_a_cache_by_hand():
    cache = Cache(40, line=10)
    assert cache.touch(0, 20, writes=False) == Traffic(20, 0)
    assert cache.touch(0, 20, writes=False) == Traffic()  # hits
    assert cache.touch(10, 10, writes=True) == Traffic()
    # Lines 4 and 5 take the places of lines 0, clean, and 1, dirty.
    assert cache.touch(40, 20, writes=False) == Traffic(20, 10)
    # They were not written to.
    assert cache.touch(0, 20, writes=True) == Traffic(20, 0)
    assert cache.touch(40, 10, writes=False) == Traffic(10, 10)
    # A part of a line is a line.
    assert cache.touch(79, 2, writes=False) == Traffic(20, 0)


def test_a_range_larger_than_the_cache_replaces_itself():
    cache = Cache(30, line=10)
    assert cache.touch(0, 70, writes=True) == Traffic(70, 40)
    assert cache.touch(0, 70, writes=False) == Traffic(70, 30)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_a_direct_mapped_cache(seed: int):
    draw = random.Random(seed)
    lines, cache = draw.randint(1, 7), None
    cache = Cache(8 * lines, line=8)
    tags: dict[int, tuple[int, bool]] = {}
    for _ in range(200):
        first, nbytes = draw.randrange(160), draw.randint(1, 60)
        writes = draw.random() < 0.5
        filled = back = 0
        for line in range(first // 8, -(-(first + nbytes) // 8)):
            tag, dirty = tags.get(line % lines, (None, False))
            if tag != line:
                filled, back = filled + 8, back + 8 * dirty
                dirty = False
            tags[line % lines] = line, dirty or writes
        assert cache.touch(first, nbytes, writes) == Traffic(filled, back)


def test_misses_take_the_time_of_both_memories():
    # 200 bytes read at 20 and written at 50; 100 read at 100 and written at 10.
    assert Traffic(200, 100).seconds(ROUND) == 10 + 4 + 1 + 10


@pytest.mark.parametrize("seed", range(20))
def test_a_cache_that_holds_all_has_no_misses_after_the_first_step(seed: int):
    found, kernels = step(seed)
    every = sum(tensor.nbytes for tensor in found.tensors)
    outcome = memory_mode(found, kernels, ROUND, every, line=16)
    assert (outcome.out, outcome.into, outcome.fast_read) == (0, 0, 1.0)
    assert outcome.seconds == pytest.approx(all_fast(found, kernels, ROUND).seconds)


@pytest.mark.parametrize("seed", range(20))
def test_in_steps_that_repeat_no_more_is_written_back_than_filled(seed: int):
    found, kernels = step(seed)
    every = sum(tensor.nbytes for tensor in found.tensors)
    outcome = memory_mode(found, kernels, ROUND, every // 4, line=16)
    assert 0 <= outcome.out <= outcome.into
    assert outcome.seconds >= all_fast(found, kernels, ROUND).seconds - 1e-9


def test_a_step_by_hand():
    # Two tensors with one place in the cache between them, each written and then read.
    found, kernels = chain([100, 100])
    outcome = memory_mode(found, kernels, ROUND, 100, line=100)
    # Segment 0 writes the first: it replaces the second, which was written. Segment 1
    # reads it, which hits, and writes the second, which replaces it. The last segment
    # hits.
    assert (outcome.into, outcome.out) == (200, 200)
    kernels_take = 200 / 100 + 200 / 50
    assert outcome.seconds == kernels_take + Traffic(200, 200).seconds(ROUND)


def test_no_room_for_a_line_is_an_error():
    found, kernels = chain([100, 100])
    crowded = dataclasses.replace(found, small=((5000, 0, 3),))
    memory_mode(crowded, kernels, ROUND, 5010, line=10)
    with pytest.raises(ValueError) as caught:
        memory_mode(crowded, kernels, ROUND, 100, line=10)
    assert str(caught.value) == (
        "The limit is 100 bytes of fast memory, and values too small to decide about "
        "take 5000: that leaves less than a line of 10."
    )
    with pytest.raises(ValueError, match="leaves less than a line of 10"):
        memory_mode(crowded, kernels, ROUND, 5009, line=10)
    with pytest.raises(ValueError) as caught:
        memory_mode(found, kernels, ROUND, 100, line=0)
    assert str(caught.value) == "A line of 0 bytes holds nothing: give 1 or more."


def test_addresses_are_used_again():
    found, _ = chain([30, 30, 30, 30])
    assert _addresses(found, 10) == [0, 30, 0, 30]
    assert _addresses(found, 20) == [0, 40, 0, 40]


def test_hundreds_of_gigabytes_are_few_runs_of_lines(monkeypatch: pytest.MonkeyPatch):
    runs = 0
    run = Cache._run

    def counted(*args: Any) -> Traffic:
        nonlocal runs
        runs += 1
        return run(*args)

    monkeypatch.setattr(Cache, "_run", counted)
    found, kernels = chain([10**9] * 650)
    outcome = memory_mode(found, kernels, ROUND, 10**9)
    assert outcome.into > 650 * 10**9
    # Two steps, in which each tensor is written and read: once around the cache, from
    # somewhere in it, and the line that is one too many.
    assert runs <= 2 * 650 * 2 * 3
