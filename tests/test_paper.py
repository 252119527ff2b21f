"""The experiments of the AutoTM paper: their quick form, and what they are made of."""

import json
import math
from pathlib import Path

import pytest

from autotm_jax.machine import describe
from autotm_jax.profile.roofline import seconds
from autotm_jax.simulate import OPTANE, STREAMING_STORES, all_fast, all_slow
from autotm_jax.solve import Schedule, replay
from benchmarks.paper.__main__ import EXPERIMENTS, main, run
from benchmarks.paper.cost import SERVER, memory_cost, total_cost
from benchmarks.paper.kernels import convolution
from benchmarks.paper.posing import posed
from benchmarks.paper.ratios import loss
from benchmarks.paper.registry import BEGINNINGS
from benchmarks.paper.report import Report, Table
from benchmarks.paper.sharing import Shared
from benchmarks.paper.study import Study
from benchmarks.posing import traced
from benchmarks.workloads import Workload, densenet, inception, resnet, vgg


SMALL = {
    "vgg": vgg.workload(vgg.Config(batch=8), "vgg"),
    "resnet": resnet.workload(resnet.Config(blocks=(1, 2, 1, 1), batch=8), "resnet"),
    "densenet": densenet.workload(
        densenet.Config(blocks=(2, 3, 2, 2), batch=8), "densenet"
    ),
    "inception": inception.workload(inception.Config(batch=8), "inception"),
}


def test_the_quick_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    reports = run((), True, tmp_path)
    printed = capsys.readouterr()
    # One takes JAX's CUDA plugin.
    assert {*EXPERIMENTS} - {*reports} <= {"compiled"}
    assert printed.err.count("begins") == len(EXPERIMENTS)
    for name, report in reports.items():
        assert f"## {name}: {report.title}" in printed.out
        written = json.loads((tmp_path / f"{name}.json").read_text())
        assert written["paper"] == report.claim
        assert written["differs"] == report.differs
        for table, found in zip(report.tables, written["tables"], strict=True):
            assert found["title"] == table.title
            assert found["columns"] == list(table.columns)
            assert found["rows"] == [list(row) for row in table.rows]
            assert table.markdown() in printed.out
            is_measured = name in ("solving", "compiled")
            assert is_measured or table.title.endswith("simulated")
        assert (tmp_path / f"{name}.png").exists() == (report.draw is not None)
    solves = reports["solving"].tables[1]
    statuses, gaps = solves.column("status"), solves.column("gap, percent")
    # How near the others come to the best is a matter of the time that they get.
    proved = [g for g, s in zip(gaps, statuses, strict=True) if s == "optimal"]
    assert proved and all(gap <= 1.0 + 1e-6 for gap in proved)  # pyright: ignore
    slack = 1 + max(gaps) / 100  # pyright: ignore
    speed = reports["ratios"].tables[0]
    for row in speed.rows:
        _, _, _, touched, static, synchronous, ideal = row
        assert 1 <= touched <= static * slack  # pyright: ignore
        assert static <= synchronous * slack and synchronous <= ideal  # pyright: ignore
    for table in reports["large"].tables[::2]:
        for static, synchronous, ideal in zip(
            *map(table.column, ("static", "synchronous", "all fast")), strict=True
        ):
            assert 1 <= static <= synchronous * slack  # pyright: ignore
            assert synchronous <= ideal  # pyright: ignore
    (sweep,) = reports["inception"].tables
    slowdowns = sweep.column("slowdown")
    for way in (0, 1, 2):
        assert slowdowns[way::3] == sorted(slowdowns[way::3], reverse=True)  # pyright: ignore


def test_the_command_names_what_there_is(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["figures"])
    said = capsys.readouterr().err
    assert "no experiment 'figures': there are kernels, ratios, large" in said


def test_what_takes_long_begins_first_and_ends_with_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    begun: list[Study] = []
    said: list[str] = []

    def begin(study: Study) -> None:
        said.append("begun")
        begun.append(study)
        sleeping = [("import time; time.sleep(600)",)]
        study.shared["long"] = Shared("timeit", sleeping, study.say)

    def fail(study: Study) -> Report:
        assert study is begun[0]
        said.append("run")
        raise ZeroDivisionError

    monkeypatch.setitem(BEGINNINGS, "compiled", begin)
    monkeypatch.setitem(EXPERIMENTS, "kernels", fail)
    with pytest.raises(ZeroDivisionError):
        run(("compiled", "kernels"), False, tmp_path)
    assert said == ["begun", "run"]
    with pytest.raises(RuntimeError, match="after shutdown"):
        begun[0].shared["long"].results()


def test_what_is_not_asked_for_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(BEGINNINGS, "compiled")
    monkeypatch.setitem(BEGINNINGS, "gpu", lambda _: pytest.fail("begun"))
    assert [*run(("kernels",), True, tmp_path)] == ["kernels"]


@pytest.mark.parametrize("name", SMALL)
def test_a_step_is_posed_on_a_machine_that_reads_slow_memory(name: str):
    workload: Workload = SMALL[name]
    case = posed(workload)
    problem = case.problem
    assert problem.segments == len(case.kernels)
    assert set(problem.workspace) == {0}
    for index, tensor in enumerate(problem.tensors):
        assert tensor.movable and tensor.recipe is None
        found = [k for k, kernel in enumerate(case.kernels) if index in kernel.tensors]
        assert tuple(found) == tensor.touches
        makers = [
            k for k in found if any(index in p.writes for p in case.kernels[k].passes)
        ]
        assert makers == [tensor.touches[0]]
    assert case.peak == replay(problem, Schedule()).device_peak
    assert case.limit(1) == case.peak // 2
    fast, slow = (f(problem, case.kernels, OPTANE) for f in (all_fast, all_slow))
    assert sum(problem.compute) == pytest.approx(fast.seconds)
    more = 0.0
    for k, kernel in enumerate(case.kernels):
        found = problem.streamed(k, kernel.tensors)
        assert found is not None or not kernel.tensors
        more += found.seconds if found is not None else 0.0
    assert fast.seconds + more == pytest.approx(slow.seconds)


@pytest.mark.parametrize("name", SMALL)
def test_fused_work_takes_less_than_the_roofline_of_each_kernel(name: str):
    program = traced(SMALL[name])
    machine = describe("optane-host")
    alone = sum(seconds(program, segment.body, machine) for segment in program.segments)
    case = posed(SMALL[name])
    assert 0.4 * alone < sum(case.problem.compute) < 1.02 * alone


def test_other_memories_change_times_and_nothing_else():
    case = posed(SMALL["vgg"])
    other = case.on(STREAMING_STORES)
    assert other.problem.compute == case.problem.compute
    assert other.problem.tensors == case.problem.tensors
    slow = [all_slow(c.problem, c.kernels, c.memories).seconds for c in (case, other)]
    assert slow[1] < slow[0]


def test_a_geometric_mean_loss():
    assert loss([1.0, 1.0], [2.0, 8.0]) == pytest.approx(75.0)
    assert loss([3.0], [3.0]) == 0


def test_costs_are_those_of_the_paper():
    found = [memory_cost(*ratio) for ratio in ((1, 0), (8, 1), (4, 1), (1, 1), (0, 1))]
    assert found == pytest.approx([0.476, 0.534, 0.581, 0.738, 1.0], abs=5e-4)
    assert total_cost(0, 1, 192) == 1.0
    # The more memory, the nearer to the cost of memory alone.
    assert memory_cost(8, 1) < total_cost(8, 1, 768) < total_cost(8, 1, 192) < 1
    assert math.isclose(SERVER.energy, 0.3 * 26280 * 1.5 * 0.1)


def test_the_convolution_of_the_kernel_plot():
    kernel = convolution()
    (step,) = kernel.passes
    assert step.seconds == pytest.approx(2 * 9 * 128**2 * 128 * 48**2 / 2.1e12)
    assert step.reads == {0: 4 * 128 * 48 * 48 * 128, 1: 4 * 9 * 128 * 128}
    assert kernel.time(OPTANE, {0}) == kernel.time(OPTANE)
    assert kernel.time(OPTANE, {2}) > 1.3 * kernel.time(OPTANE)


def test_a_report_in_markdown():
    table = Table("Things", ("name", "s"), (("a", 1.0), ("b", None), ("c", 123.4)))
    report = Report("a title", "a claim.", "a difference.", (table,))
    assert report.markdown("name") == (
        "## name: a title\n\nThe paper: a claim.\n\nWhat differs: a difference.\n\n"
        "**Things**\n\n| name | s |\n| --- | ---: |\n| a | 1 |\n| b | - |\n| c | 123 |"
    )
