"""Work that processes do beside everything else (benchmarks/paper/sharing.py)."""

import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.paper.sharing import Shared


# Each line is a letter, and what is waited for before it is done.
WORK = """
import json, os, pathlib, sys, time
name, awaited = sys.argv[1:]
while awaited and not pathlib.Path(awaited).exists():
    time.sleep(0.01)
if name == "fails":
    raise SystemExit(3)
print("noise")
print(json.dumps([name, os.getpid()]))
pathlib.Path(name).touch()
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_each_line_is_done_once_by_a_process_of_its_own():
    said: list[str] = []
    lines = [(name, "") for name in "abcde"]
    found = Shared("work", lines, said.append).results()
    names, processes = zip(*found, strict=True)
    assert names == tuple("abcde")
    assert len({*processes}) == len(lines)
    assert sorted(text for text in said if text.endswith("begins")) == [
        f"{name}  begins" for name in "abcde"
    ]


def test_two_work_from_both_ends():
    # The first ends after all others, of which the last is done first.
    lines = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "")]
    found = Shared("work", lines, lambda _: None).results()
    assert [name for name, _ in found] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "lines", [[("fails", ""), ("b", "never")], [("a", "never"), ("fails", "")]]
)
def test_if_one_fails_the_others_end(lines: list[tuple[str, str]]):
    shared = Shared("work", lines, lambda _: None)
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        shared.results()  # which waits for both


def test_closed_it_begins_nothing_more(tmp_path: Path):
    said: list[str] = []
    shared = Shared("work", [("a", "never"), ("b", "")], said.append)
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    shared.close()
    assert said == ["a never begins"]
    assert not (tmp_path / "b").exists()
