"""Plots of plans and sweeps: what is drawn, and where it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import autotm_jax as autotm
from autotm_jax import Point, Sweep
from autotm_jax.report.course import course_of

from .test_course import plan_of


def texts(figure: Any) -> list[str]:
    legends = [text.get_text() for legend in figure.legends for text in legend.texts]
    axes = [a.get_xlabel() for a in figure.axes] + [a.get_ylabel() for a in figure.axes]
    marks = [t.get_text() for a in figure.axes for t in a.texts]
    return [*legends, *axes, *marks, figure.get_suptitle()]


@pytest.mark.parametrize("budget", [0.6, "min"])
def test_a_plan(budget: float | str):
    plan = plan_of(budget)
    course = course_of(plan)
    figure = plan.plot()
    said = texts(figure)
    assert {"as planned", "nothing moved or computed again"} <= set(said)
    assert "time, ms (simulated)" in said
    assert {"forward", "backward"} <= set(said)
    assert ("budget" in said) == (budget != "min")
    assert said[-1].endswith("(modelled)")
    device, host, _ = figure.axes
    top = max(course.device) / 2**30
    drawn = [max(p.get_data().values) for p in device.patches]
    assert any(value == pytest.approx(top) for value in drawn)
    assert host.get_ylabel() == "host, GiB"


def test_labels_do_not_overlap():
    figure = plan_of("min").plot()
    figure.draw_without_rendering()
    for axes in figure.axes:
        shown = [t for t in axes.texts if t.get_text()]
        boxes = [t.get_window_extent() for t in shown]
        for n, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:n])


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_files(kind: str, tmp_path: Path):
    path = tmp_path / f"memory.{kind}"
    plan_of(0.6).plot(path)
    begin = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert path.read_bytes().startswith(begin)


def test_files_of_no_kind(tmp_path: Path):
    path = tmp_path / "memory.txt"
    with pytest.raises(autotm.ReportError) as caught:
        plan_of(0.6).plot(str(path))
    assert str(caught.value) == (
        f"{path} does not say what kind of picture it is to be: let it end in .png, "
        ".svg or .pdf."
    )
    assert not path.exists()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(autotm.ReportError) as caught:
        plan_of(0.6).plot()
    assert str(caught.value) == (
        "Plots are drawn by matplotlib, which is not installed: "
        "pip install 'autotm-jax[plots]'."
    )


def test_a_sweep(tmp_path: Path):
    points = (
        Point("2GiB", 2**31, 0.1),
        Point("min", 2**30, 0.2),
        Point("1B", None, None),
    )
    sweep = Sweep(points, (Point("jax.jit", 2**32, 0.09),))
    figure = sweep.plot(tmp_path / "pareto.svg")
    said = texts(figure)
    assert {"2GiB", "min", "jax.jit", "autotm.jit", "without a plan"} <= set(said)
    assert "1B" not in said
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [1.0, 2.0]
    assert line.get_ydata().tolist() == pytest.approx([200, 100])
    assert (tmp_path / "pareto.svg").exists()


def test_a_sweep_without_plans():
    sweep = Sweep((Point("1B", None, None),), (Point("jax.jit", 2**32, 0.09),))
    with pytest.raises(
        autotm.ReportError, match="^There is nothing to draw: no budget"
    ):
        sweep.plot()
