"""Plans as files: kept, read, and applied to the step that they are of."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autotm_jax as autotm
from autotm_jax import Plan, PlanFileError, Status

from .compiling import needs_cuda_plugin
from .test_state import batches, initial, train_step


MIB = 2**20


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


@functools.cache
def arguments(layers: int = 6) -> Any:
    return shapes((initial(layers), batches(1)[0]))


@functools.cache
def planned() -> Plan:
    step = autotm.jit(train_step, budget="min", target="h100-sxm", donate_argnums=0)
    return step.plan(*arguments())


def applied(plan: Plan, **options: Any) -> Any:
    known = {"target": "h100-sxm", "donate_argnums": 0, **options}
    return autotm.jit(train_step, plan=plan, **known)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "plan.json"
    planned().save(found)
    return found


def test_a_plan_is_applied_as_it_was(path: Path):
    plan = Plan.load(path)
    assert plan.note == f"loaded from {path}, and not applied yet"
    assert plan.schedule == planned().schedule and plan.program is None
    assert plan.device_bytes == planned().device_bytes
    found = applied(plan).plan(*arguments())
    assert found.schedule == planned().schedule
    assert found.device_bytes == planned().device_bytes
    assert found.seconds == planned().seconds and found.on_host == planned().on_host
    assert "Why this plan" in found.explain()


def test_a_plan_that_is_not_applied_cannot_be_drawn(path: Path):
    with pytest.raises(autotm.ReportError) as caught:
        Plan.load(path).plot()
    assert str(caught.value) == (
        f"The plan in {path} is not applied yet. Give it to autotm.jit(..., plan=plan),"
        " and use the .plan(...) of that step."
    )


def test_one_that_was_not_a_file_is_applied_too():
    assert applied(planned()).plan(*arguments()).schedule == planned().schedule


def test_it_says_what_it_does(path: Path):
    assert "loaded from" in str(Plan.load(path))
    entry = json.loads(path.read_text())
    used = {c["value"] if isinstance(c, dict) else c[0] for c in _copies(entry)}
    assert used and {str(v) for v in used} <= set(entry["values"])
    assert any("test_state.py" in name for name in entry["values"].values())
    names = [name for _, name in entry["program"]["arguments"]]
    assert names[0] == "argument state[0][0]" and names[-1] == "argument x"


def _copies(entry: Any) -> Any:
    return entry["schedule"]["stores"] + entry["schedule"]["fetches"]


def test_what_is_loaded_can_be_saved(path: Path, tmp_path: Path):
    again = tmp_path / "again.json"
    Plan.load(path).save(again)
    assert again.read_bytes() == path.read_bytes()


@needs_cuda_plugin
def test_what_is_compiled_is_checked(path: Path):
    step = applied(Plan.load(path))
    compiled = step.lower(*arguments()).compile()
    plan = step.plan(*arguments())
    assert plan.realised is not None and plan.realised.rounds == 1
    assert plan.realised.device_bytes == autotm.device_bytes(compiled)
    small = applied(Plan.load(path), budget=plan.realised.device_bytes - 1024)
    with pytest.raises(autotm.InfeasibleBudget, match=f"for the plan in {path}, and "):
        small.lower(*arguments()).compile()


def test_it_runs(path: Path):
    step = autotm.jit(train_step, budget="min", donate_argnums=0)
    state, x = initial(), batches(1)[0]
    step.plan(state, x).save(path)
    given = autotm.jit(train_step, plan=Plan.load(path), donate_argnums=0)
    _, expected = jax.jit(train_step)(initial(), x)
    with pytest.warns(autotm.AutoTMWarning):  # that the state moves
        state, found = given(state, x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert given.plan(state, x).on_host


def test_a_plan_for_a_machine_that_is_not_here_is_applied_here(path: Path):
    step = autotm.jit(train_step, plan=Plan.load(path), donate_argnums=0)
    state, x = initial(), batches(1)[0]
    _, expected = jax.jit(train_step)(initial(), x)
    with pytest.warns(autotm.AutoTMWarning):  # that the state moves
        state, found = step(state, x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    plan = step.plan(state, x)
    assert plan.schedule == planned().schedule and plan.on_host == planned().on_host
    other = applied(Plan.load(path), target="h200-sxm").plan(*arguments())
    assert other.schedule == planned().schedule


def test_a_budget_that_it_is_not_predicted_to_keep(path: Path):
    plan = applied(Plan.load(path), budget=100_000).plan(*arguments())
    assert plan.note == "it is predicted to take more than the budget of 97.7 KiB"


def test_what_is_not_applied_explains_nothing(path: Path):
    assert Plan.load(path).explain() == (
        f"Why this plan\n  The plan is loaded from {path}, and not applied yet: "
        "nothing is known of the step."
    )


def test_a_step_that_is_left_as_it_is(path: Path):
    step = autotm.jit(train_step, budget="1GiB", donate_argnums=0)
    step.plan(*arguments()).save(path)
    plan = Plan.load(path)
    assert plan.status is Status.UNTOUCHED
    given = autotm.jit(train_step, plan=plan, donate_argnums=0)
    found = given.plan(*arguments())
    assert found.is_untouched and found.budget == 2**30
    assert found.note == f"{path} leaves the step as it is"


def test_a_step_without_a_plan():
    with pytest.warns(autotm.AutoTMWarning, match="it returns no arrays"):
        plan = autotm.jit(lambda x: None, budget="min").plan(jnp.ones(3))
    with pytest.raises(PlanFileError, match="^There is no plan to keep: it returns no"):
        plan.save("plan.json")


def other_step(state: Any, x: jax.Array) -> Any:
    (params, moments), value = train_step(state, x)
    return (jax.tree.map(lambda w: w * jnp.cos(w), params), moments), value


@pytest.mark.parametrize(
    ("step", "args", "options", "text"),
    [
        (train_step, 5, {}, "it had 20 arguments and has 17"),
        (other_step, 6, {}, "segment 8 was dot_general at test_state.py:"),
        (
            train_step,
            6,
            {"donate_argnums": None},
            "it has state on the host between calls",
        ),
        (train_step, 6, {"move_state": False}, "it has state on the host between"),
    ],
)
def test_plans_of_other_steps(
    step: Any, args: int, options: Any, text: str, path: Path
):
    known = {"target": "h100-sxm", "donate_argnums": 0, **options}
    given = autotm.jit(step, plan=Plan.load(path), **known)
    with pytest.raises(PlanFileError) as caught:
        given.plan(*arguments(args))
    assert str(caught.value).startswith(f"{path} does not fit this step: {text}")


def test_arguments_of_other_shapes(path: Path):
    state, x = arguments()
    wide = jax.ShapeDtypeStruct((64, 64), x.dtype)
    with pytest.raises(PlanFileError) as caught:
        applied(Plan.load(path)).plan(state, wide)
    assert str(caught.value) == (
        f"{path} does not fit this step: its argument x was f32[32,64] and is "
        f"f32[64,64]. Plan the step again."
    )


def changed(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_files_that_are_no_plans(path: Path, tmp_path: Path):
    for text, said in (
        ("{", f"{path} is no plan, as it is no JSON (Expecting"),
        ("[" * 100_000, f"{path} is no plan, as it is no JSON (maximum recursion"),
        ("[]", f"{path} is no plan: it does not say that its format is 'autotm-jax"),
        ('{"format": 1}', f"{path} is no plan: it does not say that its format is"),
    ):
        path.write_text(text)
        with pytest.raises(PlanFileError) as caught:
            Plan.load(path)
        assert str(caught.value).startswith(said)
    missing = tmp_path / "missing.json"
    with pytest.raises(PlanFileError) as caught:
        Plan.load(missing)
    assert str(caught.value) == (
        f"{missing} could not be read ([Errno 2] No such file or directory: "
        f"'{missing}'). Name a file that Plan.save has written."
    )


def test_another_version(path: Path):
    changed(path, version=7)
    with pytest.raises(PlanFileError) as caught:
        Plan.load(path)
    assert str(caught.value) == (
        f"{path} is a plan of version 7, and version 1 is read here. Plan the step "
        "again."
    )


def test_a_plan_of_another_version_of_jax(path: Path):
    changed(path, jax="0.1.2")
    with pytest.raises(PlanFileError) as caught:
        applied(Plan.load(path)).plan(*arguments(5))
    assert str(caught.value).endswith(
        f"(it was made with JAX 0.1.2, and this is {jax.__version__}). Plan the step "
        "again."
    )


def test_no_host_memory_for_a_state_on_the_host(path: Path):
    with pytest.raises(PlanFileError) as caught:
        applied(Plan.load(path), host_budget=0).plan(*arguments())
    assert str(caught.value) == (
        f"{path} does not fit this step: it has state on the host between calls, and "
        "no host memory may be used. Raise host_budget."
    )


def test_a_step_that_does_not_fit_as_it_is(path: Path):
    autotm.jit(train_step, budget="1GiB").plan(*arguments()).save(path)
    given = autotm.jit(train_step, plan=Plan.load(path), budget="200KiB")
    with pytest.raises(
        PlanFileError, match="^.* leaves the step as it is, which takes"
    ):
        given.plan(*arguments())


@pytest.mark.parametrize(
    "change",
    [
        {"stores": [[1, "q", 3, -1]]},
        {"objective": "q"},
        {"picks": [[9999, 1]]},
        {"fetches": [[1, 9000, 9999, -1]]},
    ],
)
def test_a_schedule_that_is_damaged(change: dict[str, Any], path: Path):
    entry = json.loads(path.read_text())
    changed(path, schedule={**entry["schedule"], **change})
    with pytest.raises(PlanFileError, match=f"^{path} "):
        applied(Plan.load(path)).plan(*arguments())


@pytest.mark.parametrize(
    "entries",
    [
        {"schedule": {}},
        {"schedule": None},
        {"program": {"order": "NO_ORDER"}},
        {"program": 3},
        {"predicted": {}},
        {"budget": "much"},
        {"budget": float("inf")},
        {"budget": -1},
        {"predicted": {"host_bytes": None}},
        {"schedule": {"note": 3}},
        {"schedule": {"solver": True}},
    ],
)
def test_damaged_files(entries: dict[str, Any], path: Path):
    before = json.loads(path.read_text())
    for name, change in entries.items():
        is_part = isinstance(change, dict) and change
        changed(path, **{name: {**before[name], **change} if is_part else change})
    with pytest.raises(PlanFileError) as caught:
        Plan.load(path)
    assert str(caught.value).startswith(f"{path} is a damaged plan (")
    assert str(caught.value).endswith("Plan the step again.")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"budget": "much"}, "a figure is no number"),
        ({"budget": -1}, "the budget is none"),
        ({"schedule": {}}, "the schedule is none"),
    ],
)
def test_what_is_damaged_is_said(entries: dict[str, Any], text: str, path: Path):
    changed(path, **entries)
    with pytest.raises(PlanFileError) as caught:
        Plan.load(path)
    assert str(caught.value) == (
        f"{path} is a damaged plan (ValueError: {text}). Plan the step again."
    )


def test_a_schedule_that_breaks_a_rule(path: Path):
    entry = json.loads(path.read_text())
    entry["schedule"]["stores"] = []
    changed(path, schedule=entry["schedule"])
    with pytest.raises(PlanFileError, match=r"does not fit this step\. Value"):
        applied(Plan.load(path)).plan(*arguments())


def test_what_is_no_plan():
    with pytest.raises(TypeError) as caught:
        autotm.jit(train_step, plan="plan.json")  # pyright: ignore
    assert str(caught.value) == (
        "plan is 'plan.json', of type str. Give a plan: that of another step, or "
        "autotm.Plan.load(...) of a file."
    )
