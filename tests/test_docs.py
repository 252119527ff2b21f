"""The documentation builds by itself, and what its pages show runs."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest

import autotm_jax as autotm
from autotm_jax import command
from autotm_jax.profile import transfers
from autotm_jax.profile.timing import Timing
from benchmarks.gpu import __main__ as gpu
from benchmarks.paper.__main__ import EXPERIMENTS

from .compiling import needs_cuda_plugin


ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(DOCS.glob("*.md"))

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINES = re.MULTILINE | re.DOTALL
_PLAN = re.compile(r"^Plan\n(?:  .*\n)+", re.MULTILINE)
_OPTIONAL = ("note", "overlap", "state", "loop", "runs by")
_ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
# What a page would load from elsewhere. Links to other pages are no such thing.
_LOADED = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//|@import")
_STYLES = re.compile(r"<link[^>]*rel=\"?(?:stylesheet|preconnect)[^>]*//")


def blocks(page: Path) -> list[str]:
    """The blocks of Python of a page, each moved down to the line it is on."""
    text = page.read_text()
    return [
        "\n" * text.count("\n", 0, found.start(1)) + found.group(1)
        for found in _BLOCK.finditer(text)
    ]


def as_test(what: Any, code: str, name: str) -> Any:
    """The parameter of a test that runs code; for an absent GPU it takes the plugin."""
    is_absent = any(f'"{name}"' in code for name in autotm.known_machines())
    return pytest.param(what, id=name, marks=[needs_cuda_plugin] * is_absent)


# The first block of the README is a program of its own. The others are excerpts, in
# which these names stand for what the reader has, as the text below that block says.
READERS = """
import jax, jax.numpy as jnp, autotm_jax as autotm

def train_step(state, batch):
    loss, grads = jax.value_and_grad(evaluate)(state, batch)
    return jax.tree.map(lambda w, g: w - 1e-3 * g, state, grads), loss

def evaluate(state, batch):
    for weight in state:
        batch = jnp.tanh(batch @ weight)
    return jnp.mean(batch**2)

params, batch = [jnp.eye(64) for _ in range(6)], jnp.ones((512, 64))
state, batches = params, [batch, batch]
step = autotm.jit(train_step, budget=0.8, donate_argnums=0)
"""


def rows(plan: str) -> list[str]:
    """What the lines of a printed plan are called, but for those that may be absent.

    Another version of JAX may have another plan.
    """
    found = re.findall(r"^  (\S+(?: \S+)*)  +\S", plan, re.MULTILINE)
    return [name for name in found if name not in _OPTIONAL]


@pytest.mark.parametrize(
    "page",
    [as_test(page, "".join(blocks(page)), page.stem) for page in PAGES if blocks(page)],
)
def test_a_page_runs(page: Path):
    namespace: dict[str, Any] = {"__name__": page.stem}
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore", autotm.AutoTMWarning)
        for block in blocks(page):
            exec(compile(block, str(page), "exec", dont_inherit=True), namespace)
    # Plans that the page shows have the lines that plans have.
    shown = re.findall(r"^```text\n(Plan\n.*?)^```$", page.read_text(), _LINES)
    known = [rows(text) for text in _PLAN.findall(printed.getvalue())]
    assert all(rows(text) in known for text in shown)


@pytest.mark.parametrize(
    "block", [as_test(block, block, str(n)) for n, block in enumerate(blocks(README))]
)
def test_a_block_of_the_readme_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # some write files
    namespace: dict[str, Any] = {"__name__": "readme"}
    is_program = "def train_step" in block
    assert is_program == (block == blocks(README)[0])
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", autotm.AutoTMWarning)
        if not is_program:
            exec(READERS, namespace)
        exec(compile(block, str(README), "exec", dont_inherit=True), namespace)


def commands(page: Path) -> list[str]:
    """The lines of the shell that a page shows, without what they are for."""
    found = re.findall(r"^```(?:sh|bash)\n(.*?)^```$", page.read_text(), _LINES)
    lines = "".join(found).splitlines()
    return [line.partition("  #")[0].rstrip() for line in lines]


def printed(page: Path) -> dict[str, str]:
    """What a page shows below lines of the shell, each by the line above it."""
    below = r"^```(?:sh|bash)\n([^`]*?)\n```\n+```text\n(.*?)^```$"
    found = re.findall(below, page.read_text(), _LINES)
    return {above.splitlines()[-1]: text for above, text in found}


PRINTED = {k: v for page in (README, *PAGES) for k, v in printed(page).items()}

SHOWN = [*dict.fromkeys(line for page in (README, *PAGES) for line in commands(page))]


@pytest.mark.parametrize(
    "line", [as_test(s, " ".join(f'"{t}"' for t in s.split()), s) for s in SHOWN]
)
def test_a_line_of_the_shell_does_what_it_says(
    line: str,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    name, *options = shlex.split(line)
    if name == "make":
        assert f"\n{options[0]}:" in (ROOT / "Makefile").read_text()
        return
    if name == "pip":  # what runs this test was installed so
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        assert options[:2] == ["install", "-e"]
        assert options[2] in (".", *(f".[{extra}]" for extra in extras))
        return
    if name == "python":  # what it runs has tests of its own
        if options[:2] == ["-m", "benchmarks.gpu"]:
            gpu.parser().parse_args(options[2:])
            return
        assert options[:2] == ["-m", "benchmarks.paper"]
        assert {*options[2:]} <= {*EXPERIMENTS, "--quick"}
        return
    assert name == "autotm"
    (source,) = blocks(DOCS / "command-line.md")
    monkeypatch.setattr(transfers, "_time", lambda d, n: Timing(n / 1e9, 0, 7, 0, 1))
    if "--target" not in options:  # it is here, and small
        source = source.replace("4096", "64").replace("16_384", "1024")
    (tmp_path / "my_module.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", autotm.AutoTMWarning)
        assert command.main(options) == 0
    said = capsys.readouterr().out
    # What the page shows below has the same rows.
    if line in PRINTED:
        first = [row.split()[0] for row in PRINTED[line].splitlines()]
        assert [row.split()[0] for row in said.splitlines()] == first


def test_what_lines_of_the_shell_print_is_compared():
    assert {*PRINTED} <= {*SHOWN}
    assert [line.split()[:2] for line in PRINTED] == [
        ["autotm", "sweep"],
        ["autotm", "plan"],
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_is_left_to_fill_in(page: Path):
    text = page.read_text()
    assert text.startswith("# ") and text.endswith("\n")
    assert "```text\n...\n```" not in text
    assert str(ROOT) not in text


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]
    site = tmp_path / "site"
    done = subprocess.run(
        [*build, str(site)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        name = "index.html" if page.stem == "index" else f"{page.stem}/index.html"
        html = (site / name).read_text()
        assert not _LOADED.search(html), name
        assert not _STYLES.search(html), name
    assert 'id="autotm_jax.jit.jit"' in (site / "reference/index.html").read_text()


def test_every_public_name_is_in_the_reference():
    found = set[int]()
    for path in _ENTRY.findall((DOCS / "reference.md").read_text()):
        module, _, name = path.rpartition(".")
        found.add(id(getattr(importlib.import_module(module), name)))
    public = {
        name: thing
        for name, thing in vars(autotm).items()
        if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert [name for name, thing in public.items() if id(thing) not in found] == []
