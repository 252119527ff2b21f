"""Settings of the process, and what the logger says."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import autotm_jax as autotm
from autotm_jax.config import Config
from autotm_jax.profile import cache

from .steps import chain_arguments, chain_step


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in [n for n in os.environ if n.startswith("AUTOTM_JAX_")]:
        monkeypatch.delenv(name)
    return Config()


def test_what_is_usual(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert config.cache_directory == Path("/somewhere/autotm-jax")
    assert config.log_level == "WARNING" and config.measure is True
    assert config.progress is True and config.solver_threads is None
    assert config.solver_gap == autotm.SolverOptions().gap
    assert config.solver_time_limit == autotm.SolverOptions().time_limit


@pytest.mark.parametrize(
    ("name", "variable", "said", "value"),
    [
        ("cache_directory", "AUTOTM_JAX_CACHE", "~/x", Path.home() / "x"),
        ("log_level", "AUTOTM_JAX_LOG", "info", "INFO"),
        ("measure", "AUTOTM_JAX_MEASURE", "0", False),
        ("progress", "AUTOTM_JAX_PROGRESS", "0", False),
        ("solver_gap", "AUTOTM_JAX_SOLVER_GAP", "0.05", 0.05),
        ("solver_threads", "AUTOTM_JAX_SOLVER_THREADS", "3", 3),
        ("solver_time_limit", "AUTOTM_JAX_SOLVER_TIME_LIMIT", "1.5", 1.5),
    ],
)
def test_the_environment_and_the_program(
    name: str,
    variable: str,
    said: str,
    value: Any,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(variable, said)
    assert getattr(config, name) == value
    monkeypatch.delenv(variable)
    usual = getattr(config, name)
    config.update(name, said)
    assert getattr(config, name) == value
    config.update(name, None)
    assert getattr(config, name) == usual
    assert name in repr(config)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("solver_threads", 0, "Give a whole number, one or more."),
        ("solver_threads", 1.5, "Give a whole number, one or more."),
        ("solver_threads", "many", "Give a whole number, one or more."),
        ("solver_threads", float("inf"), "Give a whole number, one or more."),
        ("cache_directory", 3, "Give the path of a directory."),
        (
            "solver_time_limit",
            -1,
            "Give a finite number of seconds that is not less than zero.",
        ),
        ("log_level", "loud", "Give one of DEBUG, INFO, WARNING, ERROR, CRITICAL."),
        ("measure", "maybe", "Give 1 or 0."),
        ("progress", 2, "Give 1 or 0."),
        ("solver_gap", "nan", "Give a finite number that is not less than zero."),
    ],
)
def test_values_that_are_none(name: str, value: Any, text: str, config: Config):
    with pytest.raises(autotm.ConfigError) as caught:
        config.update(name, value)
    assert str(caught.value) == f"{name} is {value!r}. {text}"


def test_a_variable_that_says_nonsense(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTOTM_JAX_SOLVER_THREADS", "none")
    with pytest.raises(autotm.ConfigError) as caught:
        _ = config.solver_threads
    assert str(caught.value) == (
        "AUTOTM_JAX_SOLVER_THREADS is 'none'. Give a whole number, one or more."
    )


def test_settings_that_there_are_not(config: Config):
    text = (
        "There is no setting 'colour'. There are cache_directory, log_level, measure, "
        "progress, solver_gap, solver_threads, solver_time_limit."
    )
    with pytest.raises(autotm.ConfigError) as caught:
        config.update("colour", "red")
    assert str(caught.value) == text
    with pytest.raises(autotm.ConfigError):
        config.colour = "red"
    config.solver_threads = "2"
    assert config.solver_threads == 2
    with pytest.raises(AttributeError) as missing:
        _ = config.colour
    assert str(missing.value) == text


@pytest.fixture
def restored():
    yield
    for name in ("cache_directory", "solver_time_limit", "log_level"):
        autotm.config.update(name, None)


def test_they_are_used(tmp_path: Path, restored: None):
    autotm.config.update("cache_directory", tmp_path)
    assert cache.cache_directory() == tmp_path
    autotm.config.update("solver_time_limit", 0)
    step = autotm.jit(chain_step, budget="min")
    assert step._request().solver.time_limit == 0


def test_what_is_logged(caplog: pytest.LogCaptureFixture):
    with (
        caplog.at_level(logging.INFO, "autotm_jax"),
        pytest.warns(autotm.AutoTMWarning),
    ):
        autotm.jit(chain_step, budget="100KiB")(*chain_arguments())
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("Planning autotm_jax.jit(<function chain at")
    assert said[1].startswith("Planned:\nPlan\n  budget")
    assert said[2].startswith("Plan 1 of autotm_jax.jit(<function chain at")


def test_each_search_is_logged_for_those_who_debug(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, restored: None
):
    autotm.config.update("cache_directory", tmp_path)
    with caplog.at_level(logging.DEBUG, "autotm_jax"):
        autotm.jit(chain_step, budget="100KiB").plan(*chain_arguments())
        with pytest.raises(autotm.InfeasibleBudget):
            autotm.jit(chain_step, budget="60KiB").plan(*chain_arguments())
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.DEBUG]
    number = r"[\d.]+ KiB"
    found = (
        rf"Searched \(joint\) within {number} of temporaries: solved .*, [\d.]+ ms\."
    )
    assert re.fullmatch(found, said[0])
    assert said[-1].endswith("of temporaries: nothing was found.")


def test_a_level_that_does_not_exist_does_not_stop_the_import():
    env = {**os.environ, "AUTOTM_JAX_LOG": "loud"}
    run = [sys.executable, "-m", "autotm_jax", "--help"]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    text = (
        "AUTOTM_JAX_LOG is 'loud'. Give one of DEBUG, INFO, WARNING, ERROR, CRITICAL."
    )
    assert f"AutoTMWarning: {text} Until then it is WARNING." in done.stderr
    assert done.stdout.startswith("usage: autotm")


@pytest.mark.parametrize(("level", "is_shown"), [("", False), ("INFO", True)])
def test_nothing_is_printed_by_default(level: str, is_shown: bool, tmp_path: Path):
    code = (
        "import jax.numpy as jnp, autotm_jax as autotm\n"
        "autotm.jit(lambda x: (x @ x).sum(), budget='1GiB').plan(jnp.ones((8, 8)))"
    )
    env = {**os.environ, "AUTOTM_JAX_LOG": level, "AUTOTM_JAX_CACHE": str(tmp_path)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    assert ("Planning autotm_jax.jit" in done.stderr) == is_shown
    assert not done.stdout
