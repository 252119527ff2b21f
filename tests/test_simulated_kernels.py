"""Kernels over two memories."""

import dataclasses
import itertools

import pytest

from autotm_jax.machine import describe
from autotm_jax.simulate import (
    OPTANE,
    STREAMING_STORES,
    Kernel,
    Pass,
    placements,
)

from .two_memories import ROUND, step


STEP = Pass(seconds=3.0, reads={0: 100}, writes={1: 50}, other_reads=100)


@pytest.mark.parametrize(
    ("slow", "traffic", "seconds"),
    [
        # 200 bytes read at 100, 50 written at 50.
        ((), 3.0, 3.0),
        # Half of the reads at 20.
        ((0,), 1 + 5 + 1, 7.0),
        ((1,), 2 + 5, 7.0),
        ((0, 1), 1 + 5 + 5, 11.0),
        ((7,), 3.0, 3.0),
    ],
)
def test_the_traffic_of_both_memories_adds_up(
    slow: tuple[int, ...], traffic: float, seconds: float
):
    assert STEP.traffic(ROUND, slow) == traffic
    assert STEP.time(ROUND, slow) == seconds


def test_arithmetic_hides_traffic_within_a_pass_only():
    long = dataclasses.replace(STEP, seconds=9.0)
    kernel = Kernel((long, STEP), seconds=0.5)
    assert kernel.time(ROUND) == 0.5 + 9 + 3
    assert kernel.time(ROUND, {0}) == 0.5 + 9 + 7
    assert kernel.time(ROUND, {0, 1}) == 0.5 + 11 + 11
    assert kernel.nbytes() == 2 * 150
    assert kernel.nbytes({1}) == 2 * 50


def test_without_overlap_everything_adds_up():
    kernel = Kernel((dataclasses.replace(STEP, seconds=9.0), STEP), seconds=0.5)
    apart = kernel.without_overlap()
    assert apart.time(ROUND) == 0.5 + (9 + 3) + (3 + 3)
    assert apart.time(ROUND, {0}) == 0.5 + (9 + 7) + (3 + 7)
    assert apart.groups(ROUND) == [(0,), (1,)]
    assert apart.nbytes() == kernel.nbytes()


def test_tensors_are_together_where_arithmetic_hides_some_of_them():
    hides = dataclasses.replace(STEP, seconds=5.0)
    never = dataclasses.replace(STEP, seconds=11.0)
    assert Kernel((STEP,)).groups(ROUND) == [(0,), (1,)]
    assert Kernel((never,)).groups(ROUND) == [(0,), (1,)]
    assert Kernel((hides,)).groups(ROUND) == [(0, 1)]
    other = Pass(0.0, {2: 10, 3: 10}, {})
    assert Kernel((hides, other)).groups(ROUND) == [(0, 1), (2,), (3,)]


@pytest.mark.parametrize("seed", range(30))
def test_groups_add_to_the_time_whatever_the_others_do(seed: int):
    _, kernels = step(seed)
    for kernel in kernels:
        fast, groups = kernel.time(ROUND), kernel.groups(ROUND)
        assert sorted(itertools.chain(*groups)) == sorted(kernel.tensors)
        for slow in placements(tuple(sorted(kernel.tensors)), 40):
            added = (kernel.time(ROUND, slow & set(g)) - fast for g in groups)
            assert kernel.time(ROUND, slow) == pytest.approx(fast + sum(added))


def test_placements_are_those_with_fewest_and_all():
    assert list(map(sorted, placements((1, 2), 9))) == [[1], [2], [1, 2]]
    few = list(map(sorted, placements((1, 2, 3), 4)))
    assert few == [[1], [2], [3], [1, 2, 3]]
    assert list(placements((1, 2), 1)) == [{1, 2}]
    with pytest.raises(ValueError) as caught:
        placements((1, 2), 0)
    assert str(caught.value) == (
        "The cap is 0, which leaves no placement: give 1 or more."
    )


def test_the_figures_are_those_of_the_described_machine():
    machine = describe("optane-host")
    assert OPTANE.out == machine.d2h_bandwidth
    assert OPTANE.into == machine.h2d_bandwidth
    mixed = 3 / (2 / OPTANE.fast_read + 1 / OPTANE.fast_write)
    assert mixed == pytest.approx(machine.device_bandwidth, rel=0.01)
    fields = {f.name for f in dataclasses.fields(OPTANE)} - {"sources"}
    assert set(OPTANE.sources) == set(STREAMING_STORES.sources) == fields
