"""Which ways there are, and which are worth knowing first."""

import pytest

from benchmarks.gpu.cases import CASES, GPT, POLICIES, SMALL
from benchmarks.gpu.tasks import Task, tasks
from benchmarks.gpu.ways import (
    AT_LEAST,
    AT_LOOSE,
    AT_TIGHT,
    BY_NAME,
    ON_CARD,
    PLAIN,
    REMAT,
    Way,
    budget_bytes,
    planned,
)


def of(kind: str, *flags: bool) -> list[Task]:
    """The tasks of a kind."""
    return [task for task in tasks(CASES, *flags) if task.kind == kind]


def test_workloads_take_turns():
    every = list(tasks(CASES, True, False, False))
    assert every[0].kind == "machine"
    times = [t for t in every if t.kind == "times" and t.factor == 1]
    assert [t.case for t in times[:10]] == list(CASES) * 2
    # What is to be compared with runs in the same process.
    assert all(t.ways[0] == PLAIN.name for t in times)
    (beyond,) = [t for t in every if t.factor > 1]
    assert beyond.ways == [ON_CARD.name, PLAIN.name]
    assert every.index(times[2]) < every.index(beyond) < every.index(times[3])
    assert str(beyond) == (
        "times of gpt-12 at 4 x plain's largest batch: joint at card, jax.jit"
    )


def test_each_way_is_there_once_for_each_workload():
    for full in (False, True):
        found = [
            (t.case, way)
            for t in of("times", True, full, False)
            for way in t.ways
            if t.factor == 1 and way != PLAIN.name
        ]
        assert len(found) == len({*found})
        wanted = {
            (case, f"checkpoint {policy}")
            for case in ("gpt-12", "gpt-32-scanned", "decoder-4096")
            for policy in POLICIES
        }
        assert wanted < {*found}
        assert ("adam-16", "joint at full remat") not in found
        assert ("adam-16", "static at 0.6") in found
        assert ("resnet-200", "checkpoint dots_saveable") not in found


def test_memory_is_looked_at_where_there_is_a_device():
    assert of("peak", False, True, False) == []
    assert {t.case for t in of("peak", True, False, False)} == {GPT}
    assert {t.case for t in of("peak", True, True, False)} == {*CASES}


def test_the_small_form_is_a_part_of_the_usual_one():
    few = {
        (t.kind, t.case, w) for t in tasks(SMALL, False, False, True) for w in t.ways
    }
    usual = {
        (t.kind, t.case, w) for t in tasks(CASES, False, False, False) for w in t.ways
    }
    assert few < usual
    assert {case for _, case, _ in few} == {*CASES} == {*SMALL}


def test_names():
    assert all(BY_NAME[way.name] == way for way in BY_NAME.values())
    assert {"jax.jit", "XLA offload at 0.6", "asynchronous at full remat"} < {*BY_NAME}


def test_budgets():
    assert budget_bytes(AT_TIGHT, 1000, None, 5000) == 600
    assert budget_bytes(AT_LOOSE, 1000, None, 5000) == 1200
    assert budget_bytes(planned("joint", "full remat"), 1000, 300, 5000) == 300
    assert budget_bytes(AT_LEAST, None, None, 5000) == "min"
    assert budget_bytes(ON_CARD, None, None, 5000) == 5000
    assert budget_bytes(Way("XLA offload", "", "0.5"), 1000, None, 1) == 500
    with pytest.raises(ValueError, match="'joint at 0.6' is what 'jax.jit' takes, and"):
        budget_bytes(AT_TIGHT, None, 300, 5000)


def test_a_workload_at_another_batch_and_under_a_policy():
    case = SMALL["decoder-4096"]
    assert case.workload(3).args[1]["tokens"].shape[0] == 3
    assert REMAT.suits(case) and not REMAT.suits(SMALL["adam-16"])
