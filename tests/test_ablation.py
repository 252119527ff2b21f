import dataclasses
import functools

import pytest

from autotm_jax.candidate import Candidate
from autotm_jax.machine import Target, describe
from autotm_jax.solve import Schedule, SolverOptions, replay
from benchmarks import ablation
from benchmarks.posing import candidate, least_bytes, traced

from .steps import get


OPTIONS = SolverOptions(time_limit=10.0)


@functools.cache
def posed() -> Candidate:
    # A GPU's link and rates, and workspace that is estimated, as for a CPU.
    machine = dataclasses.replace(describe("h100-sxm"), platform="cpu")
    return candidate(traced(get("gpt-tiny")), Target(machine), OPTIONS)


@functools.cache
def rows() -> list[ablation.Row]:
    problem = posed().problem
    least = least_bytes(problem, posed().least.schedule)
    return list(ablation.table(posed(), least, OPTIONS, list(ablation.POLICIES)))


def test_budgets_fall_to_the_least():
    limits = [row.limit_bytes for row in rows()]
    assert limits == sorted(limits, reverse=True)
    assert rows()[0].budget == "0.9" and rows()[-1].budget == "least"
    assert rows()[0].budget_bytes == int(0.9 * posed().cut_bytes)
    assert len(rows()) >= 3


def test_no_policy_is_faster_than_the_joint_program():
    for row in rows():
        best = row.outcomes["joint"]
        assert best.seconds is not None and best.faults == 0
        for name, found in row.outcomes.items():
            if found.seconds is not None:
                # Both the gap of the solver, and that it knows fewer windows.
                assert found.seconds >= best.seconds * 0.97, (row.budget, name)


def test_what_does_not_keep_a_budget_has_no_seconds():
    some = [found for row in rows() for found in row.outcomes.values()]
    assert {found.seconds is None for found in some} == {True, False}
    for row in rows():
        for found in row.outcomes.values():
            is_kept = found.peak_bytes is not None and not found.faults
            assert (found.seconds is not None) == is_kept
            if is_kept:
                assert found.peak_bytes <= row.limit_bytes + 1
        shown = [cell.strip() for cell in ablation.line(row).split("|")[1:-1]]
        assert len(shown) == 2 + len(row.outcomes)
        for cell, found in zip(shown[2:], row.outcomes.values(), strict=True):
            assert cell.startswith("- (") == (found.seconds is None)


def test_a_policy_without_a_plan():
    problem = dataclasses.replace(posed().problem, device_limit=0.0)
    found = ablation.outcome(lambda _: None, problem)
    assert (found.seconds, found.peak_bytes, found.faults) == (None, None, 0)
    found = ablation.outcome(lambda _: Schedule(), problem)
    assert found.seconds is None and found.faults == 1
    assert found.peak_bytes == replay(problem, Schedule()).device_peak


@pytest.mark.parametrize("search", [None, Schedule()])
def test_the_least_is_that_of_the_best_plan_at_hand(search: Schedule | None):
    problem = posed().problem
    least = least_bytes(problem, search)
    assert posed().problem.floor() <= least < replay(problem, Schedule()).device_peak
