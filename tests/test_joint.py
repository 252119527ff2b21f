import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from autotm_jax.solve import (
    Fetch,
    JointProgram,
    Problem,
    Schedule,
    SolverOptions,
    Status,
    Store,
    Tensor,
    greedy,
    replay,
)
from autotm_jax.solve.network import Network

from .problems import KIB, problem, random_problem


EXACT = SolverOptions(time_limit=60.0, gap=1e-7)
PROBLEMS = 144
CHUNKS = 12

# One way of a tensor through the step: its columns, and where it is on the device.
Path = tuple[tuple[int, ...], frozenset[int]]


def paths_of(network: Network, tensor: int) -> Iterator[Path]:
    """All ways of one tensor from its source to a sink of its network."""
    leaving: dict[int, list[int]] = {}
    enters: dict[int, int] = {}
    for node, column, sign in network._flow:
        if sign < 0:
            leaving.setdefault(node, []).append(column)
        else:
            enters[column] = node
    arrives = {
        column: at
        for (owner, at), columns in network.arrivals.items()
        if owner == tensor
        for column in columns
    }

    def walk(column: int, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        path = (*path, column)
        if column not in enters:
            yield path
            return
        for following in leaving.get(enters[column], []):
            yield from walk(following, path)

    sources = [c for c in network.sources if network.edges[c].tensor == tensor]
    for source in sources:
        for path in walk(source, ()):
            yield path, frozenset(arrives[c] for c in path if c in arrives)


def roots_are_there(network: Network, chosen: tuple[Path, ...]) -> bool:
    """Whether every recomputation finds its roots on the device."""
    columns = {c for path, _ in chosen for c in path}
    tensors = network.problem.tensors
    for index, use, column in network.recomputations:
        recipe = tensors[index].recipe
        assert recipe is not None
        if column in columns and not all(use in chosen[r][1] for r in recipe.roots):
            return False
    return True


@functools.cache
def everything(seed: int) -> list[tuple[float, int, Schedule]]:
    """Makespan, device peak and schedule of all placements of a random problem."""
    free = random_problem(seed)
    network = Network(free)
    ways = [list(paths_of(network, i)) for i in range(len(free.tensors))]
    out = []
    for chosen in itertools.product(*ways):
        if not roots_are_there(network, chosen):
            continue
        vector = np.zeros(len(network.edges))
        vector[[c for path, _ in chosen for c in path]] = 1
        schedule = network.decode(vector)
        state = replay(free, schedule)
        assert not state.faults, state.faults
        out.append((state.makespan, state.device_peak, schedule))
    return out


def limits(seed: int) -> list[int]:
    """Device limits from the least that any placement takes to what all take."""
    peaks = sorted({peak for _, peak, _ in everything(seed)})
    low, high = peaks[0], peaks[-1]
    return sorted({low, (3 * low + high) // 4, (low + high) // 2})


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_optimum_is_that_of_all_placements(chunk: int):
    others = 0
    for seed in range(chunk, PROBLEMS, CHUNKS):
        program = JointProgram(random_problem(seed))
        actions = {edge.action for edge in program.network.edges}
        for limit in limits(seed)[:2]:
            best = min(time for time, peak, _ in everything(seed) if peak <= limit)
            solution = program.fastest(limit, EXACT)
            assert solution.status is Status.OPTIMAL, seed
            schedule = solution.schedule
            assert schedule is not None
            bounded = dataclasses.replace(program.problem, device_limit=limit)
            state = replay(bounded, schedule)
            assert not state.faults, (seed, limit, state.faults)
            found = state.makespan
            assert solution.objective == pytest.approx(found, rel=1e-5), (seed, limit)
            assert solution.bound <= found * (1 + 1e-9), (seed, limit)
            assert found <= best * (1 + 1e-5), (seed, limit)
            # The local search may use a window that is no column.
            if {*schedule.stores, *schedule.fetches, *schedule.recomputes} <= actions:
                assert found == pytest.approx(best, rel=1e-5), (seed, limit)
            else:
                others += 1
    assert others <= 4


def test_the_random_problems_are_worth_solving():
    assert sum(len(everything(seed)) >= 4 for seed in range(PROBLEMS)) >= 100
    slower = moves = again = 0
    for seed in range(PROBLEMS):
        low = limits(seed)[0]
        fits = [e for e in everything(seed) if e[1] <= low]
        best = min(fits, key=lambda e: e[0])
        slower += best[0] > min(e[0] for e in everything(seed)) * (1 + 1e-9)
        moves += bool(best[2].stores)
        again += bool(best[2].recomputes)
    assert (slower >= 60, moves >= 20, again >= 60) == (True, True, True)


@pytest.mark.parametrize("seed", range(0, PROBLEMS, 5))
def test_the_least_memory_is_that_of_all_placements(seed: int):
    program = JointProgram(random_problem(seed))
    least = min(peak for _, peak, _ in everything(seed))
    solution = program.least_memory(EXACT)
    assert solution.schedule is not None
    assert solution.objective == pytest.approx(least, abs=2)
    assert replay(program.problem, solution.schedule).device_peak == least
    assert least >= program.problem.floor()


@pytest.mark.parametrize("seed", range(1, 60, 6))
def test_more_memory_never_takes_longer(seed: int):
    program = JointProgram(random_problem(seed))
    peaks = sorted({peak for _, peak, _ in everything(seed)})
    chosen = peaks[:: max(1, len(peaks) // 4)] + [peaks[-1]]
    times = [program.fastest(limit, EXACT).objective for limit in chosen]
    for less, more in itertools.pairwise(times):
        assert more <= less * (1 + 1e-6)
    assert times[-1] >= sum(program.problem.compute) * (1 - 1e-6)


@pytest.mark.parametrize("seed", range(2, 60, 6))
def test_nothing_fits_below_the_least(seed: int):
    program = JointProgram(random_problem(seed))
    least = min(peak for _, peak, _ in everything(seed))
    for limit in (least - KIB // 2, program.problem.floor() - KIB, 0):
        solution = program.fastest(limit, EXACT)
        assert solution.status is Status.INFEASIBLE
        assert solution.schedule is None
        assert math.isinf(solution.objective)


def test_a_greedy_plan_is_never_faster():
    found = 0
    for seed in range(3, 60, 4):
        limit = limits(seed)[-1]
        bounded = dataclasses.replace(random_problem(seed), device_limit=limit)
        schedule = greedy(bounded)
        if schedule is None:
            continue
        found += 1
        optimum = JointProgram(bounded).fastest(limit, EXACT)
        assert optimum.objective <= replay(bounded, schedule).makespan * (1 + 1e-6)
    assert found >= 8


@pytest.mark.parametrize("seed", range(0, 30, 6))
def test_the_host_limit_is_kept(seed: int):
    free = random_problem(seed)
    tight = dataclasses.replace(free, host_limit=0)
    limit = limits(seed)[0]
    solution = JointProgram(tight).fastest(limit, EXACT)
    unmoved = [e for e in everything(seed) if e[1] <= limit and not e[2].stores]
    if not unmoved:
        assert solution.status is Status.INFEASIBLE
        return
    assert solution.schedule is not None
    assert not solution.schedule.stores
    assert solution.objective == pytest.approx(min(e[0] for e in unmoved), rel=1e-5)


@pytest.mark.parametrize("seed", range(4, 60, 11))
def test_the_default_options_are_within_their_gap(seed: int):
    options = SolverOptions()
    limit = limits(seed)[0]
    solution = JointProgram(random_problem(seed)).fastest(limit, options)
    best = min(time for time, peak, _ in everything(seed) if peak <= limit)
    assert best * (1 - 1e-6) <= solution.objective <= best * (1 + options.gap + 1e-6)
    assert solution.gap <= options.gap + 1e-9


def test_any_windows_for_the_copies_are_no_faster_by_much():
    # The network offers a few lengths per copy. All starts and ends, written down
    # without it, bound what that costs: here, nothing.
    count = 7
    tensors = [
        Tensor(0, 60 * KIB, (0, count - 1)),
        Tensor(1, 30 * KIB, (1, count - 1)),
    ]
    limit = 64 * KIB
    bounded: Problem = problem(tensors, count, device_limit=limit)

    def ways(tensor: Tensor) -> list[Schedule]:
        first, last = tensor.touches
        out = [Schedule()]
        for done in range(first + 2, last):
            for start in range(done, last):
                store = Store(tensor.value, first, done)
                fetch = Fetch(tensor.value, start, last)
                out.append(Schedule((store,), (fetch,)))
        return out

    best = math.inf
    for one, two in itertools.product(*map(ways, tensors)):
        both = Schedule(one.stores + two.stores, one.fetches + two.fetches)
        state = replay(bounded, both)
        if not state.faults:
            best = min(best, state.makespan)
    solution = JointProgram(bounded).fastest(limit, EXACT)
    assert math.isinf(best) == (solution.schedule is None)
    if solution.schedule is not None:
        assert best * (1 - 1e-6) <= solution.objective <= best * 1.05


@pytest.mark.parametrize("seed", range(12))
def test_the_relaxation_is_below_all_placements_and_falls_with_the_limit(seed: int):
    joint = JointProgram(random_problem(seed))
    found = [joint.relaxation(limit) for limit in limits(seed)]
    for limit, seconds in zip(limits(seed), found, strict=True):
        best = min(time for time, peak, _ in everything(seed) if peak <= limit)
        assert seconds is not None
        assert sum(joint.problem.compute) <= seconds * (1 + 1e-6)
        assert seconds <= best * (1 + 1e-6)
    assert found == pytest.approx(sorted(found, reverse=True))
    assert joint.relaxation(2.0**40) == pytest.approx(sum(joint.problem.compute))
    assert joint.relaxation(1.0) == float("inf")
