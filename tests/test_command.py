import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import command
from autotm_jax.command import here, output, steps
from autotm_jax.machine import describe
from autotm_jax.profile import cache, transfers
from autotm_jax.profile.timing import Timing

from .compiling import needs_cuda_plugin
from .steps import chain_arguments, chain_step


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


class Single(Workload):
    """One argument is donated."""

    donate_argnums = 0  # pyright: ignore


def fails() -> Any:
    raise ValueError("from the workload")


NUMBER = 3
BARE = (jnp.sin, 3)
HERE = "tests.test_command"


@pytest.mark.parametrize("name", ["PAIR", "Workload", "Single", "make"])
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
            f"{HERE}:BARE",
            f"The arguments of '{HERE}:BARE' are a int. Give a tuple of them, also if "
            "there is one.",
        ),
        (
            "builtins:dict",  # has no signature
            "'builtins:dict' is a dict. Name something with .step and .args, a pair of "
            "a function and its arguments, or a function that returns one.",
        ),
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


def chain() -> Any:
    """A step that may be planned, and its arguments."""
    args = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), chain_arguments()
    )
    return chain_step, args


CHAIN = f"{HERE}:chain"

_COMMANDS = ("plan", "sweep", "report", "profile", "machine", "cache")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import no_such_library", "(No module named 'no_such_library')."),
        ("1 / 0", "(ZeroDivisionError: division by zero)."),
        ("def f(:", "(SyntaxError: invalid syntax"),
        ("import sys; sys.exit('not here')", "(SystemExit: not here)."),
    ],
)
def test_what_a_module_raises_is_shown(
    source: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "a_broken_module.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "a_broken_module", raising=False)
    assert command.main(["plan", "a_broken_module:step", "--budget", "min"]) == 1
    said = capsys.readouterr().err
    assert "a_broken_module.py" in said
    # What is no Python has a line, and nothing that led there.
    assert said.startswith("Traceback") == ("SyntaxError" not in text)
    assert "named.py" not in said  # only lines of the user's
    assert f"autotm: a_broken_module could not be imported {text}" in said


def test_what_a_workload_raises_is_shown(capsys: pytest.CaptureFixture[str]):
    assert command.main(["plan", f"{HERE}:fails", "--budget", "min"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and "in fails\n" in said
    assert "named.py" not in said
    assert said.endswith(
        f"\nautotm: {HERE}:fails could not be called (ValueError: from the workload).\n"
    )


def test_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plan, picture, trace = (tmp_path / n for n in ("p.json", "p.svg", "t.json.gz"))
    files = ["--save", str(plan), "--plot", str(picture), "--trace", str(trace)]
    budget = ["plan", CHAIN, "--budget", "100KiB", "--target", "h100-sxm"]
    assert command.main([*budget, *files]) == 0
    assert "  budget          100.0 KiB\n" in capsys.readouterr().out
    assert autotm.Plan.load(plan).budget == 100 * 1024
    assert picture.exists() and trace.exists()
    assert command.main([*budget, "--explain"]) == 0
    assert capsys.readouterr().out.startswith("Why this plan\n")
    assert command.main([*budget, "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["budget_bytes"] == 100 * 1024 and figures["compiled"] is None
    assert figures["device_bytes"] == autotm.Plan.load(plan).device_bytes


@needs_cuda_plugin
def test_a_plan_that_is_compiled(capsys: pytest.CaptureFixture[str]):
    options = ["--budget", "min", "--target", "h100-sxm", "--compile", "--json", "-"]
    assert command.main(["plan", CHAIN, *options]) == 0
    compiled = json.loads(capsys.readouterr().out)["compiled"]
    assert compiled["device_bytes"] > 0 and compiled["rounds"] == 1


@pytest.mark.parametrize(
    ("budget", "status", "text"),
    [
        ("100", 3, "autotm: The budget of 100 B is less than the arguments and"),
        ("bananas", 1, "autotm: budget is 'bananas', which is not a size."),
    ],
)
def test_budgets_that_cannot_be(
    budget: str, status: int, text: str, capsys: pytest.CaptureFixture[str]
):
    assert command.main(["plan", CHAIN, "--budget", budget]) == status
    assert capsys.readouterr().err.startswith(text)


def test_a_command_line_that_is_not_understood(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        command.main(["plans", CHAIN])
    assert caught.value.code == 2
    assert "invalid choice: 'plans'" in capsys.readouterr().err


def test_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    where, picture = tmp_path / "sweep.json", tmp_path / "sweep.png"
    options = ["--budgets", "1GiB, 100KiB,min,0.99", "--target", "h100-sxm"]
    files = ["--json", str(where), "--plot", str(picture)]
    assert command.main(["sweep", CHAIN, *options, *files]) == 0
    assert capsys.readouterr().out.startswith("budget ")
    found = json.loads(where.read_text())
    assert [row["name"] for row in found["budgets"]] == [
        *("1GiB", "100KiB", "min", "0.99")
    ]
    assert [row["name"] for row in found["baselines"]] == ["jax.jit"]
    assert picture.exists()


def test_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    where = tmp_path / "report.html"
    options = ["--budget", "min", "--keep-state", "--host-budget", "0"]
    assert command.main(["report", CHAIN, *options, "--output", str(where)]) == 0
    assert capsys.readouterr().out == f"The report is in {where}.\n"
    assert where.read_text().startswith("<!doctype html>")


def test_warnings_are_told_as_errors_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def warn_twice(options: Any) -> None:
        for _ in range(2):
            autotm.errors.warn("something is odd.")

    monkeypatch.setattr(command, "show_cache", warn_twice)
    assert command.main(["cache", "info"]) == 0
    assert capsys.readouterr().err == "autotm: warning: something is odd.\n"


class Terminal(io.StringIO):
    """What is written to standard error, if that is a terminal."""

    def isatty(self) -> bool:
        return True

    def wait_for(self, pattern: str) -> None:
        end = time.monotonic() + 60
        while not re.search(pattern, self.getvalue()):
            assert time.monotonic() < end, self.getvalue()
            time.sleep(0.01)

    def lines(self) -> list[str]:
        """What stays on the screen."""
        return [self._left(line) for line in self.getvalue().split("\n")]

    @staticmethod
    def _left(line: str) -> str:
        left = ""
        for part in line.split("\r"):
            left = part + left[len(part) :]
        return left.rstrip()


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def usual(message: Any, *rest: Any, **more: Any) -> None:
    """As `warnings.showwarning`, which pytest takes for itself."""
    print(f"usual: {message}", file=sys.stderr)


def test_what_is_over_soon_says_nothing(monkeypatch: pytest.MonkeyPatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(output, "_A_SECOND", 60)
    with output.busy("waiting"):
        pass
    assert terminal.lines() == [""]
    assert "waiting" not in terminal.getvalue()


def test_what_takes_a_second_says_so(monkeypatch: pytest.MonkeyPatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(output, "_A_SECOND", 0.1)
    with output.busy("waiting", 2) as next_one:
        next_one("the first")
        terminal.wait_for(r"the first: 0/2 \d\d:\d\d")
        next_one("the second")
        terminal.wait_for(r"the second: 1/2 \d\d:\d\d")
    assert "2/2" not in terminal.getvalue()  # it never was
    assert terminal.lines() == [""]


def test_a_bar_that_is_hidden(monkeypatch: pytest.MonkeyPatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("AUTOTM_JAX_PROGRESS", "0")
    monkeypatch.setattr(output, "_A_SECOND", 0)
    with output.busy("waiting"):
        time.sleep(0.1)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("is_shown", [True, False])
def test_warnings_have_lines_of_their_own(
    is_shown: bool, monkeypatch: pytest.MonkeyPatch
):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(output, "_usual", usual)
    monkeypatch.setattr(output, "_A_SECOND", 0.1 if is_shown else 60)

    def warn(options: Any) -> None:
        with output.busy("waiting"):
            if is_shown:
                terminal.wait_for("waiting: ")
            autotm.errors.warn("something is odd.")
            warnings.warn_explicit("so is this", UserWarning, "elsewhere.py", 7)

    monkeypatch.setattr(command, "show_cache", warn)
    assert command.main(["cache", "info"]) == 0
    assert terminal.lines() == [
        "autotm: warning: something is odd.",
        "usual: so is this",
        "",
    ]
    assert ("waiting" in terminal.getvalue()) == is_shown


@pytest.mark.parametrize(
    "line",
    [
        "cache info --json",
        "plan nowhere:step --budget min --json",
        "plan nowhere:step --budget min --save",
        "plan nowhere:step --budget min --plot",
        "plan nowhere:step --budget min --trace",
        "sweep nowhere:step --budgets min --plot",
        "report nowhere:step --budget min --output",
    ],
)
def test_files_that_cannot_be_written_are_told_first(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for where, why in (
        (tmp_path / "missing" / "x.png", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        assert command.main([*line.split(), str(where)]) == 1
        assert capsys.readouterr().err == (
            f"autotm: {where} could not be written ({why}). Name a file in a directory "
            "that exists and may be written to.\n"
        )


_SAVED = ["plan", "nowhere:step", "--budget", "min", "--save"]


def test_files_are_tried_and_left_as_they_are(tmp_path: Path):
    there, fresh = tmp_path / "there", tmp_path / "fresh"
    there.write_text("kept")
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    for where in (there, fresh, link):
        assert command.main([*_SAVED, str(where)]) == 1  # there is no such module
    assert there.read_text() == "kept" and not fresh.exists()
    assert link.is_symlink() and not target.exists()


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("missing/x", "No such file or directory"),
        ("link", "Too many levels of symbolic links"),
    ],
)
def test_a_link_to_where_nothing_can_be(
    target: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / target)
    assert command.main([*_SAVED, str(link)]) == 1
    assert capsys.readouterr().err == (
        f"autotm: {link} could not be written ({why}). Name a file in a directory that "
        "exists and may be written to.\n"
    )
    assert link.is_symlink()


def test_a_link_into_a_directory_that_is_not_the_users(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    monkeypatch.setattr(os, "access", lambda *rest: False)  # root may write to all
    assert command.main([*_SAVED, str(link)]) == 1
    assert capsys.readouterr().err == (
        f"autotm: {link} could not be written (Permission denied). Name a file in a "
        "directory that exists and may be written to.\n"
    )


def test_files_are_tried_while_others_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    where, opened = tmp_path / "x", os.open

    def late(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if path == where and flags & os.O_CREAT:
            where.write_text("theirs")
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", late)
    assert command.main([*_SAVED, str(where)]) == 1
    assert where.read_text() == "theirs"


def test_a_pipe_is_written_to_once(own_cache: Path, tmp_path: Path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert command.main(["cache", "info", "--json", str(pipe)]) == 0
    reader.join(60)
    assert json.loads(read[0])["directory"] == str(own_cache)


@pytest.mark.parametrize("name", ["memory.xyz", "memory", "-"])
@pytest.mark.parametrize(
    "line", ["plan nowhere:step --budget min", "sweep nowhere:step --budgets min"]
)
def test_pictures_of_no_kind_are_told_first(
    line: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert command.main([*line.split(), "--plot", name]) == 1
    assert capsys.readouterr().err == (
        f"autotm: {name} does not say what kind of picture it is to be: let it end in "
        ".png, .svg or .pdf.\n"
    )
    assert not list(tmp_path.iterdir())


def test_missing_matplotlib_is_told_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    picture = str(tmp_path / "memory.png")
    assert command.main([*_SAVED[:-1], "--plot", picture]) == 1
    assert capsys.readouterr().err == (
        "autotm: Plots are drawn by matplotlib, which is not installed: pip install "
        "'autotm-jax[plots]'.\n"
    )


def test_the_help_has_examples(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "autotm sweep my_module:workload --budgets 20GiB,10GiB,min" in said
    assert "3 if no plan meets the budget" in said


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_help_of_each_command_ends_with_examples_and_its_exit_status(
    name: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        command.main([name, "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    _, _, end = said.partition("\nexamples:\n")
    examples, _, exits = end.partition("\nexit status: ")
    lines = [line for line in examples.splitlines() if line.startswith("  ")]
    assert lines
    for line in lines:
        before, _, arguments = line.partition(f"autotm {name}")
        assert not before.strip() or "=" in before
        options = command._parser().parse_args([name, *shlex.split(arguments)])
        assert callable(options.run)
    assert exits.startswith("0 if done, ") and "130 if interrupted" in exits
    assert ("3 if no plan meets the budget" in exits) == (name in ("plan", "report"))
    assert max(map(len, end.splitlines())) <= 88


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
