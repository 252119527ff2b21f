import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from autotm_jax import command
from autotm_jax.command import here, steps
from autotm_jax.machine import describe
from autotm_jax.profile import cache, transfers
from autotm_jax.profile.timing import Timing


X = jnp.ones((16, 16))
PAIR = (lambda x: jnp.sin(x @ x), (X,))


class Workload:
    """A step with its arguments."""

    args = (X, X)
    donate_argnums = (0,)

    @staticmethod
    def step(x: Any, y: Any) -> Any:
        return x @ y, y.sum()


def make() -> Any:
    return Workload


NUMBER = 3
HERE = "tests.test_command"


@pytest.mark.parametrize("name", ["PAIR", "Workload", "make"])
def test_a_step_by_name(name: str):
    found = command.find_step(f"{HERE}:{name}")
    assert callable(found.step)
    assert found.args[0] is X
    assert found.donate_argnums == (() if name == "PAIR" else (0,))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gpt", "'gpt' names no step. Give MODULE:NAME."),
        ("no_such_module:x", "'no_such_module:x' was not found (No module named "),
        (f"{HERE}:missing", f"'{HERE}:missing' was not found (module "),
        (f"{HERE}:Workload.step", "could not be called without arguments ("),
        (
            f"{HERE}:NUMBER",
            f"'{HERE}:NUMBER' is a int. Name something with .step and .args, a pair of "
            "a function and its arguments, or a function that returns one.",
        ),
    ],
)
def test_what_is_no_step(name: str, text: str, capsys: pytest.CaptureFixture[str]):
    assert command.main(["profile", name]) == 1
    said = capsys.readouterr().err
    assert said.startswith("autotm: ") and text in said


def test_profile(own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    where = tmp_path / "timings.json"
    args = ["profile", f"{HERE}:PAIR", "--all", "--json", str(where)]
    assert command.main(args) == 0
    text = capsys.readouterr().out
    assert "1 of 1 IO configurations timed" in text
    assert "segments together" in text and "measured" in text
    (row,) = json.loads(where.read_text())["timings"]
    assert row["placement"] == "all on the device"
    assert row["timing"]["seconds"] > 0


def test_every_equation(own_cache: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["profile", f"{HERE}:PAIR", "--equations"]) == 0
    # The segment, its matrix product alone, and the sine.
    assert "3 kinds of segment" in capsys.readouterr().out


def test_an_interrupted_profile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupt(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "calibrate", interrupt)
    assert command.main(["profile", f"{HERE}:PAIR"]) == 130
    assert capsys.readouterr().err == (
        "autotm: interrupted. What was measured is kept; the same command goes on from "
        "there.\n"
    )


def test_the_cache(own_cache: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["cache", "info"]) == 0
    assert capsys.readouterr().out == f"{own_cache}: 0 entries\n"
    cache.store("plan", cache.cache_key(1), {"x": 1})
    cache.store("time", cache.cache_key(2), {"x": 1})
    assert command.main(["cache", "info"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{own_cache}: 2 entries\n") and "plan" in text
    assert command.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"2 entries removed from {own_cache}\n"
    assert cache.load("plan", cache.cache_key(1)) is None


def test_the_machine(
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(transfers, "_time", lambda d, n: Timing(n / 1e9, 0, 7, 0, 1))
    monkeypatch.setattr(here, "machine", lambda: describe("h100-sxm"))
    where = tmp_path / "machine.json"
    assert command.main(["machine", "--json", str(where)]) == 0
    text = capsys.readouterr().out
    source = describe("h100-sxm").sources["d2h_bandwidth"]
    assert f"d2h_bandwidth     52.0 GB/s  [{source}]" in text
    assert "memory kinds: device, pinned_host" in text
    assert "both at once" in text
    assert json.loads(where.read_text())["name"] == "h100-sxm"


def test_as_a_module(tmp_path: Path):
    env = {**os.environ, "AUTOTM_JAX_CACHE": str(tmp_path / "cache")}
    run = [sys.executable, "-m", "autotm_jax", "cache", "info"]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'cache'}: 0 entries\n"
