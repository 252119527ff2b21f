"""Tensors that cross from loop to loop: the program against all placements."""

import dataclasses
import functools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotm_jax.solve import (
    Crossing,
    Fetch,
    Formulation,
    JointProgram,
    Problem,
    Recipe,
    Schedule,
    Solution,
    SolverOptions,
    Status,
    Store,
    Tensor,
    replay,
)
from autotm_jax.solve.network import Network
from autotm_jax.solve.policies import best_policy

from .brute import Placements, placements
from .problems import KIB, LINK, loop_problem, problem


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)
PROBLEMS = 72
CHUNKS = 8


@functools.cache
def drawn(seed: int) -> tuple[Problem, Placements]:
    """A problem with at least a dozen placements, and those."""
    draw = random.Random(seed)
    while True:
        found = loop_problem(draw.randrange(10**6), tensors=draw.choice([2, 3, 3, 4]))
        every = placements(found, Formulation.JOINT)
        if 12 <= len(every.seconds) <= 50_000:
            return found, every


def limit_of(seed: int) -> float:
    """A device limit; an eighth of them are below the least that any plan takes."""
    found, every = drawn(seed)
    if seed % 8 == 5:
        return every.least - KIB
    most = replay(found, Schedule()).device_peak
    part = random.Random(seed).choice([0.0, 0.0, 0.25, 0.5])
    return every.least + part * (most - every.least)


@functools.cache
def solved(seed: int) -> Solution:
    """The fastest plan within that limit."""
    return JointProgram(drawn(seed)[0]).fastest(limit_of(seed) + 1, EXACT)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_optimum_is_that_of_all_placements(chunk: int):
    for seed in range(chunk, PROBLEMS, CHUNKS):
        (free, every), limit = drawn(seed), limit_of(seed)
        best, solution = every.best(limit), solved(seed)
        if not np.isfinite(best):
            assert solution.status is Status.INFEASIBLE, seed
            assert solution.schedule is None
            continue
        assert solution.status is Status.OPTIMAL, seed
        assert solution.objective == pytest.approx(best, rel=2e-5), seed
        assert solution.bound <= best * (1 + 2e-5), seed
        assert solution.schedule is not None
        bounded = dataclasses.replace(free, device_limit=limit + 1)
        state = replay(bounded, solution.schedule)
        assert state.faults == (), seed
        assert state.makespan == pytest.approx(solution.objective, rel=1e-6), seed


def test_the_random_problems_are_worth_solving():
    feasible = binding = 0
    for seed in range(PROBLEMS):
        _, every = drawn(seed)
        best = every.best(limit_of(seed))
        feasible += np.isfinite(best)
        binding += np.isfinite(best) and best > every.seconds.min() * (1 + 1e-9)
    assert feasible == PROBLEMS * 7 // 8
    assert binding >= PROBLEMS / 2


def test_every_kind_of_decision_is_made():
    made = dict.fromkeys(
        ["stacked", "away", "again", "ahead", "beside", "at once", "host limit"], 0
    )
    made |= dict.fromkeys(["stacked for two", "back twice"], 0)
    for seed in range(PROBLEMS):
        (free, every), schedule = drawn(seed), solved(seed).schedule
        if schedule is None:
            continue
        state = replay(free, schedule)
        crossing = {t.value for t in free.tensors if t.crossing is not None}
        fetches = [f for f in schedule.fetches if f.value in crossing]
        windows = [f.window for f in fetches if not f.is_ahead]
        made["stacked"] += bool(state.stacks)
        twice = {t.value for t in free.tensors if t.crossing and t.crossing.later}
        made["stacked for two"] += any(v in twice for v, *_ in state.stacks)
        made["back twice"] += any(
            len([f for f in fetches if f.value == v]) > 1 for v in twice
        )
        made["away"] += any(s.value in crossing for s in schedule.stores)
        made["again"] += any(r.value in crossing for r in schedule.recomputes)
        made["ahead"] += any(f.is_ahead for f in fetches)
        made["beside"] += any(first < end for first, end in windows)
        made["at once"] += any(first == end for first, end in windows)
        unlimited = dataclasses.replace(free, host_limit=float("inf"))
        more = placements(unlimited, Formulation.JOINT).best(limit_of(seed))
        made["host limit"] += more < every.best(limit_of(seed)) * (1 - 1e-6)
    assert min(made.values()) >= 2, made


@pytest.mark.parametrize("seed", range(0, PROBLEMS, 6))
def test_the_least_memory_is_that_of_all_placements(seed: int):
    free, every = drawn(seed)
    program = JointProgram(free)
    solution = program.least_memory(EXACT)
    assert solution.objective == pytest.approx(every.least, abs=2)
    assert solution.schedule is not None
    state = replay(free, solution.schedule)
    assert state.faults == ()
    assert state.device_peak <= every.least + 2
    assert free.floor() <= every.least
    assert program.least_bound() <= every.least + 2


def lanes_of(network: Network, taken: np.ndarray) -> dict[str, np.ndarray]:
    """What the program has in its rows for a vector of columns."""
    names = ("device", "host", "out", "in", "again")
    return {n: np.cumsum(network.changes(n) @ taken) for n in names}


def seconds_of(found: Problem, network: Network, taken: np.ndarray) -> float:
    """The objective of the program."""
    lanes, link = lanes_of(network, taken), found.link
    compute = np.array(found.compute)
    out, into = lanes["out"] * compute, lanes["in"] * compute
    both = (out + into) / link.duplex
    again = lanes["again"]
    for (_, use), members in network.runs.items():
        recipe = found.tensors[min(members)].recipe
        assert recipe is not None
        takes_place = any(taken[columns].any() for columns in members.values())
        again[use] += recipe.seconds[use] * takes_place
    times = [compute + again, out / link.d2h, into / link.h2d, both]
    delays = float(np.array(network.delays) @ taken)
    return float(np.maximum.reduce(times).sum()) + delays


def random_path(
    network: Network, tensor: int, numbers: np.random.Generator
) -> list[int]:
    """Columns that lead a tensor through its network to the end."""
    while True:
        try:
            return network.main_path(tensor, numbers.random(len(network.edges)))
        except KeyError:  # nowhere, and no recipe for what comes next
            continue


@pytest.mark.parametrize("chunk", range(4))
def test_the_rows_of_the_program_say_what_the_checker_says(chunk: int):
    sound = ahead = 0
    for seed in range(chunk, 120, 4):
        found = loop_problem(seed, longest=5, tensors=4)
        # No tensor comes to a segment only to compute something again there.
        alone = [
            dataclasses.replace(
                t,
                optional=(),
                recipe=t.recipe and dataclasses.replace(t.recipe, roots=()),
            )
            for t in found.tensors
        ]
        found = dataclasses.replace(
            found, tensors=tuple(alone), host_limit=float("inf")
        )
        network, numbers = Network(found), np.random.default_rng(seed)
        for _ in range(12):
            taken = np.zeros(len(network.edges))
            for tensor in range(len(alone)):
                taken[random_path(network, tensor, numbers)] = 1
            schedule = network.decode(taken)
            state = replay(found, schedule)
            assert state.faults == ()
            lanes = lanes_of(network, taken)
            held = np.zeros(found.segments)
            for value, first, end in state.stays:
                held[first:end] += found.tensors[value].nbytes
            for value, first, end in state.stacks:
                held[first:end] += found.tensors[value].stacked
            assert lanes["device"] == pytest.approx(held)
            assert (lanes["host"] >= state.host - 1e-6).all()
            assert seconds_of(found, network, taken) == pytest.approx(state.makespan)
            sound += 1
            ahead += any(f.is_ahead for f in schedule.fetches)
    assert sound == 360
    assert ahead >= 20


def test_a_stack_on_the_host_is_there_for_the_span_of_both_loops():
    crossing = Crossing((0, 3), (4, 7), 5)
    tensor = Tensor(0, 100, (1, 5), times=5, crossing=crossing)
    found = problem([tensor], 8)
    schedule = Schedule((Store(0, 1, 3),), (Fetch(0, 4, 5),))
    state = replay(found, schedule)
    assert state.host.tolist() == [500] * 7 + [0]
    assert state.device.tolist() == [0, 100, 100, 0, 100, 100, 0, 0]


def test_what_one_loop_makes_again_may_read_it_after_the_program_does():
    crossing = Crossing((0, 3), (3, 5), 3)
    tensors = [
        Tensor(0, 8 * KIB, (0, 4), (2,), times=3, crossing=crossing),
        Tensor(1, 64 * KIB, (0, 2), recipe=Recipe({2: 1e-4}, 0, (0,)), times=3),
        Tensor(2, 60 * KIB, (1,), times=3),
    ]
    found = problem(tensors, 5)
    every = placements(found, Formulation.JOINT)
    solution = JointProgram(found).fastest(every.least + KIB, EXACT)
    assert solution.objective == pytest.approx(every.best(every.least + KIB), rel=2e-5)
    assert solution.schedule is not None
    assert [r.value for r in solution.schedule.recomputes] == [1]


@pytest.mark.parametrize("movable", [False, True])
def test_what_two_loops_read(movable: bool):
    # A loop makes it, and two others read it, the second one twice.
    crossing = Crossing((0, 2), (2, 4), 4, 1e-4, later=((4, 7),))
    recipe = Recipe({2: 2e-3, 4: 2e-3}, 0, ())
    first = Tensor(0, 64 * KIB, (0, 2, 4, 6), (), movable, recipe, 4, crossing)
    other = Tensor(1, 32 * KIB, (1, 5), (), False, None, 4, crossing)
    found = problem([first, other], 7)
    every = placements(found, Formulation.JOINT)
    ways = set()
    for part in (0.0, 0.3, 0.6, 1.0):
        limit = every.least + part * (
            replay(found, Schedule()).device_peak - every.least
        )
        solution = JointProgram(found).fastest(limit + 1, EXACT)
        # A local search may also make again what has a copy on the host.
        assert solution.objective <= every.best(limit + 1) * (1 + 2e-5)
        assert solution.schedule is not None
        state = replay(found, solution.schedule)
        assert state.faults == () and state.device_peak <= limit + 1
        again = len(solution.schedule.recomputes)
        ways.add((len(state.stacks), len(solution.schedule.fetches), again))
    assert {(2, 0, 0), (1, 0, 2)} <= ways
    assert (max(fetched for _, fetched, _ in ways) > 0) == movable


def test_a_fetch_ahead_is_chosen_where_the_use_comes_first():
    # What is read by the first segment of the loop can only hide behind the iteration
    # before.
    crossing = Crossing((0, 2), (2, 6), 10)
    tensor = Tensor(0, 64 * KIB, (0, 2), times=10, crossing=crossing)
    compute = [5e-3, 5e-3, *[10e-3] * 4]
    found = problem([tensor], 6, compute=compute)
    solution = JointProgram(found).fastest(200 * KIB, EXACT)
    assert solution.schedule is not None
    (fetch,) = solution.schedule.fetches
    assert fetch.is_ahead
    assert fetch.window[1] == 6
    first = LINK.alone(64 * KIB, LINK.h2d)
    # Ten copies out take longer than the loop that makes them; the way back hides.
    out = 10 * 64 * KIB / LINK.d2h
    latency = 2 * 10 * LINK.latency
    expected = max(out, 5e-3) + 5e-3 + 40e-3 + latency + first
    assert solution.objective <= expected * (1 + 1e-6)


def test_the_parts_that_would_stay():
    crossing = Crossing((0, 2), (2, 4), 8)
    tensors = [
        Tensor(i, 64 * KIB, (i, 3 - i), times=8, crossing=crossing) for i in (0, 1)
    ]
    plain = Tensor(2, KIB, (0, 3))
    program = JointProgram(problem([*tensors, plain], 4))
    everything = program.kept(18 * 64 * KIB, EXACT)
    assert everything == pytest.approx({0: 1.0, 1: 1.0})
    half = program.kept(8 * 64 * KIB + 160 * KIB, EXACT)
    assert 0.5 < sum(half.values()) < 1.5
    assert program.kept(KIB, EXACT) == {}


def joint(found: Problem, limit: float) -> float:
    """The optimum's seconds; infinity if nothing fits."""
    return JointProgram(found).fastest(limit, EXACT).objective


PARTS = st.floats(-0.1, 1.0)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), parts=st.tuples(PARTS, PARTS))
def test_more_memory_never_takes_longer(seed: int, parts: tuple[float, float]):
    found = loop_problem(seed)
    floor, most = found.floor(), replay(found, Schedule()).device_peak
    low, high = (floor + part * (most - floor) for part in sorted(parts))
    slow, fast = (joint(found, limit) for limit in (low, high))
    assert fast <= slow * (1 + 2e-5)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), part=PARTS)
def test_no_simple_policy_is_faster(seed: int, part: float):
    found = loop_problem(seed, longest=4)
    floor, most = found.floor(), replay(found, Schedule()).device_peak
    limit = floor + part * (most - floor)
    simple = best_policy(dataclasses.replace(found, device_limit=limit))
    if simple is not None:
        _, schedule = simple
        assert joint(found, limit) <= replay(found, schedule).makespan * (1 + 2e-5)
