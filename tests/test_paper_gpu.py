"""The paper's experiments on a GPU: simulated on a small one, and compiled for one."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import autotm_jax as autotm
from autotm_jax import compat
from autotm_jax.simulate import Outcome
from autotm_jax.solve import Schedule, replay
from benchmarks.paper import compiled
from benchmarks.paper.__main__ import run
from benchmarks.paper.device import MACHINE, OVERHEAD, on_device
from benchmarks.paper.gpu import BARS, held, tables
from benchmarks.paper.report import Cell, Table
from benchmarks.paper.study import Study
from benchmarks.paper.ways import FREE, FULL, MANAGED, PLANS, WAYS, Case, Tried
from benchmarks.posing import traced
from benchmarks.workloads import vgg
from benchmarks.workloads.autotm import NETWORKS

from .compiling import needs_cuda_plugin


STEP = vgg.workload(vgg.Config(batch=8), "vgg")


def numbers(table: Table, name: str) -> list[float]:
    """A column without a hole."""
    cells = table.column(name)
    assert all(isinstance(cell, (int, float)) for cell in cells)
    return [float(cell) for cell in cells]  # pyright: ignore[reportArgumentType]


def test_the_quick_form(tmp_path: Path):
    report = run(("gpu",), True, tmp_path)["gpu"]
    bars, seconds, gains, moved, needs, solves = report.tables
    assert bars.column("claim") == [claim for claim, _ in BARS]
    # With faults at full rate, waiting for copies is hardly better.
    but = [i for i in range(len(BARS)) if i != 3]
    assert [bars.column("holds")[i] for i in but] == ["yes"] * len(but)
    assert [bars.column("in")[i] for i in but] == [1] * len(but)
    assert bars.column("of cases") == [1] * len(BARS)
    assert seconds.column("fits") == ["yes", "no"]
    fitting, tight = (dict(zip(seconds.columns, r, strict=True)) for r in seconds.rows)
    # Where nothing has to move, plans and managed memory are the oracle.
    for way in (MANAGED, *(plan.value for plan in PLANS)):
        assert fitting[way] == pytest.approx(fitting["oracle"])
    assert all(tight[way] > tight["oracle"] * (1 - 1e-9) for way in WAYS)  # pyright: ignore
    assert numbers(seconds, "values, GB")[1] > numbers(seconds, "limit, GB")[1]
    for way in WAYS[1:]:
        pairs = zip(numbers(seconds, MANAGED), numbers(seconds, way), strict=True)
        assert numbers(gains, way) == pytest.approx([m / s for m, s in pairs])
    assert numbers(moved, "synchronous")[0] == 0 < numbers(moved, "synchronous")[1]
    assert needs.column("over the limit") == ["-", "-"]
    assert solves.column("status")[:3] == ["fits: nothing moves"] * 3
    modelled, simulated = (
        numbers(solves, "modelled, s"),
        numbers(solves, "simulated, s"),
    )
    # What waits for its copies takes what the program says.
    assert simulated[3] == pytest.approx(modelled[3])


def test_a_step_on_a_gpu():
    program = traced(STEP)
    step = on_device(STEP)
    problem = step.problem
    results, aliased = program.result_bytes()
    outside = program.argument_bytes() + results - aliased
    assert problem.device_limit == 11_000_000_000 - OVERHEAD - outside
    assert math.isinf(problem.link.reach)
    assert (problem.link.d2h, problem.link.h2d) == (12e9, 12e9)
    assert step.peak == replay(problem, Schedule()).device_peak
    assert step.fits
    # A convolution and the gradients by its operands; the images get none.
    convolutions = sum(map(len, vgg.Config().stages))
    assert len(step.convolutions) == 3 * convolutions - 1
    forward = [k for k in step.convolutions if k < step.backward]
    assert len(forward) == convolutions
    for segment in program.segments:
        names = {
            compat.name_stack(program.equations[i].eqn) for i in segment.body.equations
        }
        if any("transpose(" in name for name in names):
            assert segment.index >= step.backward
        elif segment.index == step.backward:
            raise AssertionError(names)
    for index, tensor in enumerate(problem.tensors):
        maker = program.equations[program.values[tensor.value].producer or 0]
        is_made = maker.eqn.primitive.name in ("conv_general_dilated", "dot_general")
        assert is_made == (index in step.contractions)
    moved = step.problem.moved_only
    assert any(t.recipe for t in problem.tensors)
    assert not any(t.recipe or t.optional for t in moved.tensors)
    small = on_device(STEP, MACHINE, outside + step.peak - 1)
    assert not small.fits


def case(network: str, seconds: Mapping[str, float | None], note: str = "") -> Case:
    """A case in which these ways take so long, and the others a second."""
    step = dataclasses.replace(on_device(STEP), peak=10**12)
    times: dict[str, float | None] = dict.fromkeys(WAYS, 1.0)
    times.update(seconds)
    found = {
        way: None if s is None else Outcome(way, s, note=note if way == "vDNN" else "")
        for way, s in times.items()
    }
    tried = {
        plan: Tried(found[plan.value], times[plan.value], "time_limit")
        for plan in PLANS
    }
    return Case(network, 7, step, found, tried)


def test_bars_are_computed():
    managed = {MANAGED: 4.0, FULL: 2.5}
    good = {**managed, "synchronous": 3.0, "asynchronous": 2.0, "joint": 2.01}
    bad = {**managed, "synchronous": 2.0, "asynchronous": 2.0, "joint": 2.03}
    none = {**managed, "synchronous": 5.0, "asynchronous": None}
    found = held([case("a", good), case("b", bad), case("c", none)])
    assert found.column("holds") == ["no"] * len(BARS)
    assert found.column("in") == [1, 2, 2, 1, 2, 1, 1]
    both, a, b, c = "b at 7, c at 7", "a at 7", "b at 7", "c at 7"
    assert found.column("not for") == [both, c, c, f"{a}, {c}", c, both, f"{a}, {b}"]
    slow = {**good, **dict.fromkeys(FREE, 2.0)}
    fine = held([case("a", slow)])
    assert fine.column("holds") == ["yes", "yes", "yes", "no", "yes", "yes", "yes"]
    assert fine.column("not for") == ["-", "-", "-", "a at 7", "-", "-", "-"]


def test_what_keeps_the_limit_otherwise_is_no_faster():
    (claim,) = [claim for claim, _ in BARS if "otherwise" in claim]

    def holds(seconds: Mapping[str, float | None], note: str = "") -> Cell:
        bars = held([case("a", {**dict.fromkeys(FREE, 3.0), **seconds}, note)])
        return dict(zip(bars.column("claim"), bars.column("holds"), strict=True))[claim]

    assert holds({"joint": 3.03}) == "yes"
    assert holds({"joint": 3.031}) == "no"
    assert holds({"joint": 2.0, "XLA's remat": 1.9}) == "no"
    # One way is faster: that is nothing if it takes more memory than there is.
    assert holds({"joint": 2.0, "vDNN": 1.0}) == "no"
    assert holds({"joint": 2.0, "vDNN": 1.0}, "It needs more.") == "yes"
    nothing = dict.fromkeys(FREE)
    assert holds({**nothing, "joint": 9.0}) == "yes"
    assert holds({**nothing, "joint": None}) == "no"


def test_what_keeps_no_limit_has_no_speed_up():
    over = case("a", {"asynchronous": None}, "It needs more.")
    _, seconds, gains, _, needs, solves = tables([over])
    assert seconds.column("vDNN") == [1.0]
    assert gains.column("vDNN") == [None]
    assert gains.column("dots saveable") == [1.0]
    assert gains.column("asynchronous") == [None]
    assert needs.column("over the limit") == ["vDNN"]
    assert solves.column("simulated, s") == [1.0, None, 1.0]


@needs_cuda_plugin
def test_a_step_compiled_within_a_budget(tmp_path: Path):
    report = run(("compiled",), True, tmp_path)["compiled"]
    bars, found = report.tables
    assert bars.column("holds") == ["yes", "yes"]
    (device,), (budget,) = numbers(found, "device, GB"), numbers(found, "budget, GB")
    assert device <= budget == compiled.SMALL / 1e9
    assert numbers(found, "nothing moved, GB")[0] > budget
    assert numbers(found, "host, GB")[0] > 0
    assert numbers(found, "times no limit")[0] > 1


@needs_cuda_plugin
def test_a_budget_that_cannot_be_kept_is_told():
    tiny = vgg.workload(vgg.TINY, "tiny")
    found = compiled.compile_within(tiny, 1)
    row = dict(zip(compiled.COLUMNS[2:], found, strict=True))
    assert row["status"] == "InfeasibleBudget"
    assert row["device, GB"] is None
    bars = compiled.held([("vgg", 8, *row.values())])
    # Nothing was predicted.
    assert bars.column("holds") == ["no", "no case"]
    assert bars.column("of cases") == [1, 0]
    assert bars.column("not for") == ["vgg at 8", "-"]


@needs_cuda_plugin
def test_what_is_untouched_is_not_predicted():
    tiny = vgg.workload(vgg.TINY, "tiny")
    found = compiled.compile_within(tiny, 10**9)
    row = dict(zip(compiled.COLUMNS[2:], found, strict=True))
    assert row["status"] == "untouched"
    assert row["nothing moved, GB"] == row["device, GB"] is not None
    assert (row["predicted, GB"], row["error, percent"]) == (None, None)
    assert compiled.held([("vgg", 8, *found)]).column("holds") == ["yes", "no case"]
    bars = compiled.held(
        [("vgg", 8, *found), row_of("other", 2.5), row_of("far", -3.5)]
    )
    assert bars.column("holds") == ["yes", "no"]
    assert bars.column("in") == [3, 1]
    assert bars.column("of cases") == [3, 2]
    assert bars.column("not for") == ["-", "far at 8"]


def row_of(network: str, error: float) -> tuple[Cell, ...]:
    """What was compiled within its budget."""
    row: dict[str, Cell] = dict.fromkeys(compiled.COLUMNS, 1.0)
    row |= {"network": network, "batch": 8, "error, percent": error}
    return tuple(row.values())


@pytest.mark.parametrize(
    ("fails", "seconds"), [("plan", (3.0, None)), ("compile", (3.0, 4.0))]
)
def test_seconds_are_those_of_what_failed(
    fails: str, seconds: tuple[float, float | None], monkeypatch: pytest.MonkeyPatch
):
    def fail(at: str) -> None:
        if at == fails:
            raise autotm.AutoTMError("It fails.")

    step = SimpleNamespace(
        plan=lambda *_: fail("plan"), verify=lambda *_: fail("compile")
    )
    clock = iter([10.0, 13.0, 17.0])
    monkeypatch.setattr(compiled.autotm, "jit", lambda *_, **__: step)
    monkeypatch.setattr(compiled, "time", SimpleNamespace(perf_counter=clock.__next__))
    found = compiled.compile_within(vgg.workload(vgg.TINY, "tiny"), 10**9)
    row = dict(zip(compiled.COLUMNS[2:], found, strict=True))
    assert row["status"] == "AutoTMError"
    assert (row["plan, s"], row["compile, s"]) == seconds


class Done:
    """Lines of which something was found at once."""

    def __init__(self, module: str, lines: list[tuple[str, str]], *_: object):
        assert module == "benchmarks.paper.compiled"
        self.lines = lines

    def results(self) -> list[list[Cell]]:
        return [[name, int(batch), *row_of("", 1.0)[2:]] for name, batch in self.lines]


@needs_cuda_plugin
def test_what_takes_longest_is_compiled_first_and_shown_last(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(compiled, "Shared", Done)
    study = Study()
    compiled.begin(study)
    report = compiled.compiled(study)
    assert report is not None
    bars, rows = report.tables
    shown = [*zip(rows.column("network"), rows.column("batch"), strict=True)]
    assert shown == [
        (name, batch)
        for name in reversed(compiled.SLOWEST_FIRST)
        for batch in NETWORKS[name].gpu
    ]
    assert bars.column("of cases") == [len(shown)] * 2


def test_without_the_plugin_it_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiled, "NEEDS", "no_such_package.plugin")
    said: list[str] = []
    study = Study(False, said.append)
    compiled.begin(study)
    assert compiled.compiled(study) is None
    (sentence,) = said
    assert sentence.startswith("compiled is left out: ")
