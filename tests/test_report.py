import dataclasses
import importlib.metadata
import re
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import Plan, Status
from autotm_jax.budget import format_bytes
from autotm_jax.report.course import course_of
from autotm_jax.report.wording import near, said
from autotm_jax.simulate import simulate
from autotm_jax.solve import Pick, Schedule

from .steps import TINY, chain_arguments, chain_step, get


def rows_of(text: str) -> dict[str, str]:
    """The named rows of a report."""
    found = re.findall(r"^  (\S.*?)  +(.+)$", text, re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("name", TINY)
def test_it_fits_on_a_screen(name: str):
    step = autotm.jit(get(name).step, budget="min", donate_argnums=0)
    text = str(step.plan(*get(name).args))
    lines = text.splitlines()
    assert len(lines) < 40
    # The last thing on a line is a path, whose length is the user's.
    assert all(len(line.split(" from ")[0]) <= 100 for line in lines)
    assert lines[0] == "Plan"


def test_a_plan_before_and_after_it_is_compiled():
    args = chain_arguments()
    step = autotm.jit(chain_step, budget="100KiB")
    plan = step.plan(*args)
    rows = rows_of(str(plan))
    assert rows["budget"] == "100.0 KiB"
    assert rows["status"] == plan.status.value == "solved to within the MIP gap"
    assert re.fullmatch(r"[\d.]+ KiB predicted", rows["device"])
    assert re.fullmatch(r"[\d.]+ (KiB|B) predicted", rows["host"])
    assert re.fullmatch(r"[\d.]+ ms modelled, [\d.]+ x unconstrained", rows["step"])
    assert re.fullmatch(r"\d+ values, [\d.]+ (KiB|B)", rows["moved"])
    assert re.fullmatch(r"\d+ values, [\d.]+ (KiB|B)", rows["computed again"])
    assert plan.solver == f"HiGHS {importlib.metadata.version('highspy')}"
    assert re.fullmatch(
        rf"{plan.solver}, MIP gap [\d.]+%, bound [\d.]+ ms, [\d.]+ s",
        rows["solver"],
    )
    assert plan.bound is not None and plan.seconds is not None
    assert 0 < plan.bound <= plan.seconds
    assert plan.gap == pytest.approx(1 - plan.bound / plan.seconds, abs=1e-6)
    assert rows["machine"] == "cpu (described)"
    assert "modelled" in rows["times"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", autotm.AutoTMWarning)
        step(*args)
    rows = rows_of(str(step.plan(*args)))
    assert re.fullmatch(r"[\d.]+ KiB predicted, [\d.]+ KiB compiled", rows["device"])
    assert re.fullmatch(
        r"[\d.]+ (KiB|B) predicted, [\d.]+ (KiB|B) compiled", rows["host"]
    )


def test_what_moves_is_named_by_source_line():
    step = autotm.jit(chain_step, budget="min")
    plan = step.plan(*chain_arguments())
    text = str(plan)
    assert "what moves, what is computed again:" in text
    assert re.search(
        r"(moved|again) +\d+ x +[\d.]+ KiB  f32\[64,32\] from .*steps", text
    )
    schedule = plan.schedule
    counted = sum(int(n) for n in re.findall(r"(?:moved|again) +(\d+) x", text))
    assert counted == len(schedule.stores) + len(schedule.recomputes)


def test_what_it_is_compared_to():
    workload = get("gpt-tiny")
    options = {"target": "h100-sxm", "donate_argnums": 0}
    plan = autotm.jit(workload.step, budget=0.6, **options).plan(*workload.args)
    assert plan.problem is not None and plan.replay is not None
    rows = rows_of(str(plan))
    played = simulate(plan.problem, plan.schedule)
    assert rows["simulated"] == (
        f"{said(played.seconds)}, event by event on two copy engines"
    )
    plain = course_of(plan, Schedule())
    assert rows["before"] == (
        f"{format_bytes(max(plain.device))}, {said(plain.modelled)}, nothing moved or "
        "computed again (modelled)"
    )
    found = re.fullmatch(
        r"(.*) of copies, (\d+)% of it beside compute \(modelled\)", rows["overlap"]
    )
    assert found is not None and 0 <= int(found[2]) <= 100
    link = plan.problem.link
    size = {t.value: t.nbytes * t.times for t in plan.problem.tensors}
    total = sum(link.alone(size[s.value], link.d2h) for s in plan.schedule.stores)
    total += sum(link.alone(size[f.value], link.h2d) for f in plan.schedule.fetches)
    assert found[1] == said(total)


def test_an_untouched_step():
    step = autotm.jit(chain_step, budget="1TiB")
    rows = rows_of(str(step.plan(*chain_arguments())))
    assert rows["budget"] == "1,024.00 GiB"
    assert rows["status"] == "plain jax.jit fits the budget: nothing is changed"
    assert "moved" not in rows


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (
            Plan(None, Status.UNSUPPORTED, note="it is odd"),
            "Plan\n"
            "  budget  none known\n"
            "  status  the step could not be planned: it runs as jax.jit would\n"
            "  note    it is odd",
        ),
        (
            Plan(2**30, Status.UNTOUCHED, realised=autotm.Realised(2**20, 0, None, 1)),
            "Plan\n"
            "  budget   1.00 GiB\n"
            "  status   plain jax.jit fits the budget: nothing is changed\n"
            "  device   1.0 MiB compiled\n"
            "  promise  kept: 1,023.0 MiB below the budget",
        ),
    ],
)
def test_word_for_word(plan: Plan, text: str):
    assert str(plan) == text


@pytest.mark.parametrize(
    ("budget", "taken", "copies", "rounds", "text"),
    [
        (2**30, 2**29, 12, 1, "kept: 512.0 MiB below the budget, 12 copies in the"),
        (2**30, 2**31, None, 1, "not kept: 1.00 GiB above the budget"),
        (2**30, 2**30, 12, 3, "kept: 0 B below the budget, 12 copies in the"),
        (None, 2**30, 12, 1, "kept: 12 copies in the"),
    ],
)
def test_whether_the_promise_was_kept(
    budget: int | None, taken: int, copies: int | None, rounds: int, text: str
):
    plan = autotm.jit(chain_step, budget="100KiB").plan(*chain_arguments())
    assert "promise" not in rows_of(str(plan)) and plan.schedule.copies
    realised = autotm.Realised(taken, 0, copies, rounds)
    plan = dataclasses.replace(plan, budget=budget, realised=realised)
    text += " executable" if text.endswith("in the") else ""
    text += f", {rounds} plans compiled" if rounds > 1 else ""
    assert rows_of(str(plan))["promise"] == text


def test_where_nothing_was_promised_nothing_was_kept():
    realised = autotm.Realised(2**20, 0, None, 2)
    for status in (Status.UNSUPPORTED, Status.UNTOUCHED):
        assert "promise" not in rows_of(str(Plan(None, status, realised=realised)))


def test_names_are_shortened_where_a_path_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    inside = f"/home/me{tmp_path}/a.py:1"
    assert near(f"{tmp_path}/a.py:1 ({tmp_path}/b.py:2) {inside}") == (
        f"a.py:1 (b.py:2) {inside}"
    )
    monkeypatch.chdir("/")
    assert near("/a.py:1 of https://x") == "/a.py:1 of https://x"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert near(f"{gone}/a.py:1") == f"{gone}/a.py:1"


def test_files_are_named_from_the_current_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    plan = autotm.jit(chain_step, budget="100KiB").plan(*chain_arguments())
    place = Path(__file__).parent
    for here, shown in (
        (place, " steps.py:"),
        (place.parent, " tests/steps.py:"),
        (tmp_path, f" {place}/steps.py:"),
    ):
        monkeypatch.chdir(here)
        assert shown in str(plan) and shown in plan.explain()


def test_sums_of_bytes():
    args = chain_arguments()
    plan = autotm.jit(chain_step, budget="min").plan(*args)
    assert plan.program is not None
    values = plan.program.values
    stored: Any = {s.value for s in plan.schedule.stores}
    assert plan.moved_bytes == sum(values[v].nbytes for v in stored)
    again = [r.value for r in plan.schedule.recomputes]
    assert plan.recomputed_bytes == sum(values[v].nbytes for v in again)
    assert plan.moved_bytes + plan.recomputed_bytes > 0
    assert Plan(None, Status.UNTOUCHED).moved_bytes == 0


def test_variants_that_run_and_that_do_not():
    def nowhere(x: Any) -> Any:
        raise NotImplementedError("it is for another chip")

    wide = jnp.ones((8, 4096))
    norm = autotm.variants(
        lambda x: (x @ wide).sum(-1),
        lambda x: jax.lax.map(lambda row: (row @ wide).sum(), x),
        nowhere,
        names=("at once", "by rows", "by magic"),
        of="norm",
    )

    def step(x: Any) -> Any:
        for _ in range(3):
            x = jnp.tanh(x) * norm(x)[:, None]
        return x

    plan = autotm.jit(step, budget="min").plan(jnp.ones((512, 8)))
    assert plan.program is not None and plan.problem is not None
    assert len(plan.problem.variants) == 3
    picks = tuple(Pick(k, 1) for k in sorted(plan.problem.variants)[:2])
    schedule = dataclasses.replace(plan.schedule, picks=picks)
    rows = rows_of(str(dataclasses.replace(plan, schedule=schedule)))
    assert rows["runs by"] == "2 x norm, by rows"
    assert rows["left out"] == "3 x norm, by magic: it is for another chip"
    plan = autotm.jit(chain_step, budget="min").plan(*chain_arguments())
    assert "runs by" not in rows_of(str(plan))
    assert "left out" not in rows_of(str(plan))
