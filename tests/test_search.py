"""What a search does when a solver fails it, and what it says."""

import dataclasses
import math
import re
import time
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from autotm_jax.solve import (
    PROGRAMS,
    Formulation,
    JointProgram,
    Problem,
    Recipe,
    Schedule,
    SolverOptions,
    Status,
    Tensor,
    best_policy,
    largest_first,
    replay,
    uniform,
)
from autotm_jax.solve.answer import INFEASIBLE
from autotm_jax.solve.model import Model
from autotm_jax.solve.search import Search
from autotm_jax.solve.symmetry import tied

from .problems import KIB, hard_problem, limit_between, problem, random_problem


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)

# What a search may be late by, as a part of its time and in seconds.
# Half a second, and as much as the tests beside this one may take from it.
LATE, MOMENT = 0.1, 2.5


def layers(count: int) -> Problem:
    """A chain of equal layers, forth and back, that could all be computed again."""
    last = 2 * count
    tensors = [
        Tensor(0, 40 * KIB, (0, last), tuple(range(count + 1, last))),
        *(
            Tensor(i, 40 * KIB, (i, last - i), recipe=Recipe({last - i: 1e-3}, 0, (0,)))
            for i in range(1, count)
        ),
    ]
    return problem(tensors, last + 1)


def test_a_solver_that_crashes_is_survived_and_named(monkeypatch: pytest.MonkeyPatch):
    def crash(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of luck")

    free = random_problem(3)
    limit = limit_between(free, 0.5)
    monkeypatch.setattr(cp.Problem, "get_problem_data", crash)
    monkeypatch.setattr(cp.Problem, "solve", crash)
    for formulation in (Formulation.ASYNCHRONOUS, Formulation.JOINT):
        solution = PROGRAMS[formulation](free).fastest(limit, EXACT)
        failed = "HiGHS failed: RuntimeError: out of luck"
        if formulation is Formulation.JOINT:
            assert solution.status in (Status.POLICY, Status.ROUNDED)
            assert solution.note.endswith(failed)
            assert solution.schedule is not None
        else:
            assert solution.note == failed
            assert solution.status is Status.TIME_LIMIT
            assert solution.schedule is None
            assert solution.gap == float("inf")


def test_a_rounded_relaxation_says_so(monkeypatch: pytest.MonkeyPatch):
    whole = Model.run

    def only_relaxations(model: Model, *args: Any, **kwargs: Any) -> Any:
        return None if model.rows.is_boolean else whole(model, *args, **kwargs)

    monkeypatch.setattr(Model, "run", only_relaxations)
    free = layers(8)
    limit = limit_of(free)
    options = SolverOptions(time_limit=5.0, gap=1e-9)
    solution = JointProgram(free).fastest(limit, options)
    assert solution.status is Status.ROUNDED
    assert solution.schedule is not None
    bounded = dataclasses.replace(free, device_limit=limit)
    assert replay(bounded, solution.schedule).faults == ()


def limit_of(free: Problem) -> float:
    """About half of what all tensors take."""
    return replay(free, Schedule()).device_peak * 0.55


@pytest.mark.parametrize(("seed", "is_laid"), [(2, False), (3, True)])
def test_an_asynchronous_search_without_an_answer_begins_with_the_synchronous_plan(
    monkeypatch: pytest.MonkeyPatch, seed: int, is_laid: bool
):
    whole, free = Model.run, random_problem(seed)
    limit = limit_between(free, 0.6)
    program = PROGRAMS[Formulation.ASYNCHRONOUS](free)
    reach = len(program.columns.edges)

    def only_small(model: Model, *args: Any, **kwargs: Any) -> Any:
        return (
            None
            if len(model.rows.columns.edges) == reach
            else whole(model, *args, **kwargs)
        )

    synchronous = PROGRAMS[Formulation.SYNCHRONOUS](free).fastest(limit, EXACT)
    assert synchronous.schedule is not None
    monkeypatch.setattr(Model, "run", only_small)
    found = program.fastest(limit, EXACT)
    assert found.schedule is not None
    state = replay(dataclasses.replace(free, device_limit=limit), found.schedule)
    assert not state.faults
    assert found.objective == program.seconds_of(found.schedule, state)
    if is_laid:
        # Its copies run beside segments, and that is all that was done.
        assert found.objective < synchronous.objective
        assert found.status is Status.ROUNDED
        assert found.note == ""
    else:
        # No segment near its copies has room for them.
        assert found.schedule == synchronous.schedule
        assert found.status is Status.TIME_LIMIT
        assert found.note == "no copy runs beside a segment"


@pytest.mark.parametrize("name", ["compute", "workspace"])
def test_costs_that_are_none_are_refused(name: str):
    for cost in (float("nan"), float("inf"), -1.0):
        if name == "workspace" and cost < 0:
            continue  # a result may take the place of an operand
        costs = {name: [cost, 1.0]}
        with pytest.raises(ValueError, match=rf"Segment 0 is said to take {cost} "):
            problem([], 2, **costs)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("formulation", Formulation)
def test_tensors_of_no_bytes_and_of_terabytes(formulation: Formulation):
    huge = 3 * 2**40
    tensors = [Tensor(0, 0, (0, 5)), Tensor(1, huge, (0, 5)), Tensor(2, huge, (2, 3))]
    one = problem(tensors, 6)
    program = PROGRAMS[formulation](one)
    loose = program.fastest(2.0 * huge + 1, EXACT)
    assert loose.schedule is not None
    assert loose.objective == pytest.approx(6e-3)
    tight = program.fastest(1.5 * huge, EXACT)
    is_static = formulation is Formulation.STATIC
    assert (tight.schedule is None) == is_static
    if tight.schedule is not None:
        assert {s.value for s in tight.schedule.stores} == {1}


@pytest.mark.parametrize("formulation", Formulation)
def test_one_kernel_and_nothing_to_decide(formulation: Formulation):
    one = problem([], 1, workspace=[10 * KIB])
    program = PROGRAMS[formulation](one)
    assert program.fastest(10 * KIB, EXACT).schedule == Schedule()
    assert program.fastest(9 * KIB, EXACT).status is Status.INFEASIBLE


def test_layers_that_are_alike_are_decided_together():
    free = layers(33)
    program = JointProgram(free)
    tie = program.tie
    columns, decisions = tie.shape
    assert columns == len(program.columns.edges)
    assert decisions < columns / 2
    assert np.array_equal(np.asarray(tie.sum(axis=1)).ravel(), np.ones(columns))
    assert (tied(program.columns) != tie).nnz == 0


@pytest.mark.parametrize("count", [4, 6, 9])
@pytest.mark.parametrize("part", [0.5, 0.7])
def test_the_program_of_groups_against_the_full_one(count: int, part: float):
    free = layers(count)
    limit = replay(free, Schedule()).device_peak * part
    program = JointProgram(free)
    full, found = (m.run(limit, EXACT) for m in (program.boolean, program.alike))
    assert full is not None
    assert found is not None
    bounded = dataclasses.replace(free, device_limit=limit)
    state = replay(bounded, program.decoded(found.x, found.picks))
    assert state.faults == ()
    # Some sum of groups is any number of layers: next to nothing is lost here.
    assert full.objective * (1 - 2e-5) <= found.objective <= full.objective * 1.02
    assert state.makespan * 1e3 == pytest.approx(found.objective, rel=1e-4)


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_no_policy_is_faster_than_the_optimum(seed: int):
    free = random_problem(seed)
    limit = limit_between(free, 0.5)
    bounded = dataclasses.replace(free, device_limit=limit)
    optimum = JointProgram(free).fastest(limit, EXACT).objective
    policies = {"alike": uniform(bounded), "largest first": largest_first(bounded)}
    policies |= dict([best_policy(bounded) or ("none", None)])
    for name, schedule in policies.items():
        state = None if schedule is None else replay(bounded, schedule)
        if state is not None and not state.faults:
            assert optimum <= state.makespan * (1 + 2e-5), name


def test_the_policies_are_named():
    free = layers(6)
    loose = dataclasses.replace(free, device_limit=1e9)
    assert best_policy(loose) == ("everything stays", Schedule())
    found = best_policy(dataclasses.replace(free, device_limit=limit_of(free)))
    assert found is not None and found[0] == "everything is offloaded"
    assert best_policy(dataclasses.replace(free, device_limit=1.0)) is None


@pytest.mark.parametrize("seed", range(0, 30, 3))
def test_a_rounding_passes_the_checker(seed: int):
    free = random_problem(seed)
    limit = limit_between(free, 0.5)
    program = JointProgram(free)
    schedule = program.rounding(limit, EXACT)
    if schedule is not None:
        state = replay(dataclasses.replace(free, device_limit=limit), schedule)
        assert state.faults == ()
        assert state.makespan >= program.fastest(limit, EXACT).objective * (1 - 2e-5)
    assert program.rounding(0.0, EXACT) is None


@pytest.mark.parametrize("formulation", Formulation)
@pytest.mark.parametrize("part", [0.0, 0.05, 0.4])
def test_a_search_ends_in_its_time(formulation: Formulation, part: float):
    free = hard_problem(120)
    program, floor = PROGRAMS[formulation](free), free.floor()
    limit = floor + part * (replay(free, Schedule()).device_peak - floor)
    options = SolverOptions(time_limit=1.0, gap=0.0)
    start = time.perf_counter()
    solution = program.fastest(limit, options)
    taken = time.perf_counter() - start
    assert taken <= (1 + LATE) * options.time_limit + MOMENT
    assert solution.seconds <= taken
    if part:
        assert solution.seconds >= 0.5 * options.time_limit, "not hard"
    if solution.schedule is not None:
        bounded = dataclasses.replace(free, device_limit=limit)
        assert replay(bounded, solution.schedule).faults == ()


@pytest.mark.parametrize("formulation", Formulation)
def test_the_search_for_the_least_memory_ends_in_its_time(formulation: Formulation):
    program = PROGRAMS[formulation](hard_problem(120))
    options = SolverOptions(time_limit=1.0, gap=0.0)
    start = time.perf_counter()
    solution = program.least_memory(options)
    assert time.perf_counter() - start <= (1 + LATE) * options.time_limit + MOMENT
    assert program.problem.floor() <= solution.bound <= solution.objective


def test_a_relaxation_that_takes_too_long_leaves_the_rest_to_simple_plans(
    monkeypatch: pytest.MonkeyPatch,
):
    def slow(model: Model, limit: Any, options: SolverOptions, *rest: Any):
        time.sleep(options.time_limit)

    monkeypatch.setattr(Model, "run", slow)
    free = layers(12)
    limit = limit_of(free)
    solution = JointProgram(free).fastest(limit, SolverOptions(1.0, 1e-9))
    assert solution.status in (Status.POLICY, Status.ROUNDED)
    assert solution.schedule is not None
    bounded = dataclasses.replace(free, device_limit=limit)
    assert replay(bounded, solution.schedule).faults == ()
    assert solution.bound == free.fastest()


def test_the_bound_of_the_least_memory_is_the_floor_until_it_is_known():
    free = random_problem(0)
    program = JointProgram(free)
    for _ in range(2):
        assert program.least_bound(1e-9) == free.floor()
    assert program.least_bound() > free.floor()
    # It is known from then on.
    assert program.least_bound(1e-9) == program.least_bound() > free.floor()


def test_simple_policies_are_scored_while_a_program_takes_all_its_time(
    monkeypatch: pytest.MonkeyPatch,
):
    free = layers(12)
    limit = limit_between(free, 0.3)
    simple = uniform(dataclasses.replace(free, device_limit=limit))
    assert simple is not None

    whole = Model.run

    def slow(model: Model, limit: Any, options: SolverOptions, *rest: Any) -> Any:
        if not model.rows.is_boolean:
            return whole(model, limit, options, *rest)
        time.sleep(options.time_limit)

    monkeypatch.setattr(Model, "run", slow)
    found = JointProgram(free).fastest(limit, SolverOptions(2.0, 1e-9))
    assert found.schedule is not None
    # Not what is made in a hurry where there is no plan at all.
    assert found.status in (Status.POLICY, Status.ROUNDED)
    best = replay(free, simple).makespan
    assert replay(free, found.schedule).makespan <= best * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(0, 40, 8))
def test_without_time_a_policy_is_used_if_one_keeps_the_limit(seed: int):
    free = random_problem(seed)
    limit = limit_between(free, 0.5)
    bounded = dataclasses.replace(free, device_limit=limit)
    policy, found = best_policy(bounded), JointProgram(free)
    for seconds in (0.0, 1e-6):
        solution = found.fastest(limit, SolverOptions(seconds))
        if policy is not None:
            assert solution.schedule is not None
            state = replay(bounded, solution.schedule)
            assert not state.faults
            assert state.makespan <= replay(bounded, policy[1]).makespan * (1 + 1e-9)
        assert solution.bound <= solution.objective


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_what_is_found_outside_of_the_columns_does_not_raise_the_bound(
    seed: int, monkeypatch: pytest.MonkeyPatch
):
    # A solver that finds no plan at all proves nothing about those of other windows.
    def none(model: Model, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)
        return INFEASIBLE if model.rows.is_boolean else None

    monkeypatch.setattr(Model, "run", none)
    free = random_problem(seed)
    limit = limit_between(free, 0.5)
    solution = JointProgram(free).fastest(limit, SolverOptions(1.0, 1e-9))
    if solution.schedule is not None and solution.status is not Status.OPTIMAL:
        assert solution.bound < solution.objective
        assert solution.bound == pytest.approx(free.fastest())


def test_of_what_is_within_the_gap_that_of_the_columns_is_taken(
    monkeypatch: pytest.MonkeyPatch,
):
    free = random_problem(3)
    limit = limit_between(free, 0.5)
    program = JointProgram(free)
    optimum = program.fastest(limit, EXACT)
    assert optimum.status is Status.OPTIMAL and optimum.schedule is not None
    # By other windows it is a little faster.
    told = Search._told

    def faster(self: Search, *args: Any) -> Any:
        answer = told(self, *args)
        objective = min(answer.objective, optimum.objective * 1e3 * (1 - 1e-3))
        return dataclasses.replace(answer, objective=objective)

    monkeypatch.setattr(Search, "_told", faster)
    options = SolverOptions(time_limit=60.0, gap=0.05)
    search = Search(program, limit, options)
    search._take_turn(False)
    assert search.best is not None and search.best.schedule is not None
    found = search.run()
    assert found.status is Status.OPTIMAL
    assert search.best is search.chosen
    assert found.objective >= optimum.objective * (1 - 2e-5)


def test_a_search_begins_where_one_for_a_lower_limit_ended():
    free = hard_problem(60)
    program = JointProgram(free)
    tight = program.fastest(limit_between(free, 0.4), SolverOptions(3.0))
    assert tight.schedule is not None
    # With no time to look for anything.
    loose = program.fastest(limit_between(free, 0.6), SolverOptions(0.01))
    assert loose.objective <= tight.objective * (1 + 1e-9)
    other = JointProgram(free).fastest(limit_between(free, 0.6), SolverOptions(0.01))
    assert other.objective > loose.objective


@pytest.mark.parametrize("formulation", Formulation)
def test_nothing_is_found_below_the_optimum(formulation: Formulation):
    found = 0
    for seed in range(0, 40, 4):
        boolean = PROGRAMS[formulation](random_problem(seed)).boolean
        limit = limit_between(random_problem(seed), 0.6)
        best = boolean.run(limit, EXACT)
        assert best is not None
        if best is INFEASIBLE:
            continue
        found += 1
        none = boolean.run(limit, EXACT, below=best.objective * (1 - 1e-4))
        assert none is INFEASIBLE, seed
        again = boolean.run(limit, EXACT, below=best.objective * (1 + 1e-4))
        assert again is not None
        assert again.objective == pytest.approx(best.objective, rel=2e-5), seed
    assert found >= 2


@pytest.mark.parametrize("gap", [1e-5, 0.05])
def test_a_search_proves_its_best_or_beats_it(gap: float):
    # From a slow plan: columns that no better plan takes are left out.
    better = proved = 0
    for seed in range(30):
        program = JointProgram(random_problem(seed))
        limit = limit_between(program.problem, 0.5)
        policy = best_policy(dataclasses.replace(program.problem, device_limit=limit))
        relaxed = program.relaxed.run(limit, EXACT)
        optimum = program.boolean.run(limit, EXACT)
        if policy is None or relaxed is None or optimum is None:
            continue
        search = Search(program, limit, dataclasses.replace(EXACT, gap=gap))
        search.best = search._told(limit, policy[1])
        slow = search.best.objective
        found = search._whole(relaxed, 1.0)
        assert found is not None
        assert search.bound <= optimum.objective * (1 + 2e-5), seed
        if found is INFEASIBLE:
            proved += 1
            assert slow * (1 - gap) <= optimum.objective * (1 + 2e-5), seed
            assert search._is_good(search.best), seed
        else:
            better += 1
            within = gap + 2e-5
            assert found.objective == pytest.approx(optimum.objective, rel=within)
    assert min(better, proved) >= 2, (better, proved)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "60", None])
@pytest.mark.parametrize(
    ("name", "one"), [("time_limit", "60 seconds"), ("gap", "0.01")]
)
def test_limits_that_are_none_are_refused(name: str, one: str, value: Any):
    said = (
        f"The solver's {name} is {value!r}: give a finite number that is not less than "
        f"zero, as {one}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        SolverOptions(**{name: value})


@pytest.mark.parametrize("threads", [0, -2, "all", 1.5])
def test_threads_that_are_none_are_refused(threads: Any):
    said = (
        f"The solver's threads are {threads!r}: give one or more, or None for as many "
        "as it likes."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        SolverOptions(threads=threads)


@pytest.mark.parametrize("seed", range(12))
def test_what_a_proof_leaves_out_costs_more_than_what_is_to_be_beaten(seed: int):
    problem, exact = random_problem(seed), SolverOptions(time_limit=60.0, gap=1e-6)
    limit = limit_between(problem, 0.3)
    program = JointProgram(problem)
    relaxed = program.relaxed.run(limit, exact)
    best = program.boolean.run(limit, exact)
    assert relaxed is not None and best is not None
    # What is taken is not left out, also where it has to be taken.
    assert not relaxed.reduced_costs[relaxed.x > 0.5].any()
    room = best.objective - relaxed.objective + 1e-6 * abs(best.objective)
    found = program.boolean.run(limit, exact, relaxed.reduced_costs <= room)
    assert found is not None
    assert found.objective == pytest.approx(best.objective, rel=1e-5)
