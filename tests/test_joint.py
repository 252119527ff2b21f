import dataclasses
import itertools
import math

import cvxpy as cp
import pytest

from autotm_jax.errors import SolverError
from autotm_jax.solve import (
    Fetch,
    JointProgram,
    Pick,
    Problem,
    Schedule,
    SolverOptions,
    Store,
    Tensor,
    Variant,
    greedy,
    replay,
)
from autotm_jax.solve.ledger import Ledger

from .problems import KIB, limit_between, problem, random_problem


EXACT = SolverOptions(time_limit=60.0, gap=1e-7)


def limit_of(seed: int) -> float:
    """Half-way from the least that any plan takes to what all tensors take."""
    return limit_between(random_problem(seed), 0.5)


def test_a_greedy_plan_is_never_faster():
    found = 0
    for seed in range(3, 60, 4):
        limit = limit_of(seed)
        bounded = dataclasses.replace(random_problem(seed), device_limit=limit)
        schedule = greedy(bounded)
        if schedule is None:
            continue
        found += 1
        optimum = JointProgram(bounded).fastest(limit, EXACT)
        assert optimum.objective <= replay(bounded, schedule).makespan * (1 + 1e-6)
    assert found >= 8


@pytest.mark.parametrize("seed", range(4, 60, 11))
def test_the_default_options_are_within_their_gap(seed: int):
    options = SolverOptions()
    limit = limit_of(seed)
    program = JointProgram(random_problem(seed))
    solution = program.fastest(limit, options)
    best = program.fastest(limit, EXACT).objective
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
def test_the_relaxation_is_below_the_optimum_and_falls_with_the_limit(seed: int):
    joint = JointProgram(random_problem(seed))
    least = joint.least_memory(EXACT).objective
    limits = [least + 1, (least + limit_of(seed)) / 2, limit_of(seed)]
    found = [joint.relaxation(limit) for limit in limits]
    for limit, seconds in zip(limits, found, strict=True):
        best = joint.fastest(limit, EXACT).objective
        assert seconds is not None
        assert sum(joint.problem.compute) <= seconds * (1 + 1e-6)
        assert seconds <= best * (1 + 1e-5)
    assert found == pytest.approx(sorted(found, reverse=True))
    assert joint.relaxation(2.0**40) == pytest.approx(sum(joint.problem.compute))
    assert joint.relaxation(1.0) == float("inf")


@pytest.mark.parametrize("block", [1, 3, 128])
def test_rows_that_sum_say_what_rows_of_changes_do(
    block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("autotm_jax.solve.sparse._BLOCK", block)
    found = 0
    for seed in range(12):
        program = JointProgram(random_problem(seed))
        limit = limit_between(program.problem, 0.4)
        sparse, summed = (
            model.run(limit, EXACT) for model in (program.sparse, program.boolean)
        )
        assert sparse is not None and summed is not None
        assert summed.objective == pytest.approx(sparse.objective, rel=1e-6)
        found += math.isfinite(sparse.objective)
    assert found >= 8


def test_what_is_on_the_host_is_limited_where_that_can_bind():
    free = dataclasses.replace(random_problem(5), host_limit=float("inf"))
    limit = limit_between(free, 0.3)
    fastest = JointProgram(free).fastest(limit, EXACT).schedule
    assert fastest is not None
    taken = replay(free, fastest).host_peak
    assert taken > 0
    bound = dataclasses.replace(free, host_limit=taken - 1)
    found = JointProgram(bound).fastest(limit, EXACT)
    assert found.schedule is None or replay(bound, found.schedule).host_peak < taken


def test_a_variant_takes_its_part_of_the_host():
    # Tensor 0 moves while segment 2 runs, by one of two variants.
    tensors = [Tensor(0, 100 * KIB, (0, 4))]
    lean = Variant("lean", 2e-3, 100 * KIB, host=50 * KIB)
    leaner = Variant("leaner", 3e-3, 100 * KIB)
    workspace = [0, 0, 200 * KIB, 0, 0]
    free = problem(tensors, 5, workspace=workspace, variants={2: (lean, leaner)})
    for host, picked in ((150, 1), (149, 2)):
        bound = dataclasses.replace(free, host_limit=host * KIB)
        found = JointProgram(bound).fastest(100 * KIB, EXACT).schedule
        assert found is not None
        assert found.picks == (Pick(2, picked),) and len(found.stores) == 1
        assert replay(bound, found).host_peak == (150 if picked == 1 else 100) * KIB
        other = dataclasses.replace(found, picks=(Pick(2, 1),))
        assert bool(replay(bound, other).faults) == (picked == 2)
        assert (Ledger(bound, other).excess() > 0) == (picked == 2)


def test_without_a_solver(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cp, "installed_solvers", lambda: ["CLARABEL"])
    with pytest.raises(SolverError) as caught:
        JointProgram(random_problem(3)).relaxation(limit_of(3))
    assert str(caught.value) == (
        "No solver: CVXPY does not find HiGHS. Install it with `pip install highspy`."
    )
