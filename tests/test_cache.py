import errno
import json
import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotm_jax import AutoTMWarning
from autotm_jax.profile import cache


KEY = cache.cache_key("a", 1)
TREE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def files(directory: Path) -> list[Path]:
    """All files below a directory."""
    return [p for p in directory.rglob("*") if p.is_file()]


def test_an_entry_comes_back(own_cache: Path):
    assert cache.load("kind", KEY) is None
    cache.store("kind", KEY, {"x": [1, 2.5, None]})
    assert cache.load("kind", KEY) == {"x": [1, 2.5, None]}
    assert cache.load("another", KEY) is None
    assert cache.load("kind", cache.cache_key("a", 2)) is None
    assert cache.cache_directory() == own_cache


@given(TREE)
def test_any_json_comes_back(entry: object):
    key = cache.cache_key("any", entry)
    cache.store("test", key, entry)
    assert cache.load("test", key) == entry


def test_a_new_entry_replaces_the_old(own_cache: Path):
    cache.store("kind", KEY, 1)
    cache.store("kind", KEY, 2)
    assert cache.load("kind", KEY) == 2
    assert len(files(own_cache)) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"x": 1} trailing'])
def test_a_damaged_entry_is_none(own_cache: Path, damage: bytes):
    cache.store("kind", KEY, {"x": 1})
    (path,) = files(own_cache)
    path.write_bytes(damage)
    cache._said_unreadable.clear()
    with pytest.warns(
        AutoTMWarning, match="holds an entry that cannot be read"
    ) as said:
        assert cache.load("kind", KEY) is None
        assert cache.load("kind", KEY) is None
    assert len(said) == 1
    text = "It is worked out again, as is any other such entry; `autotm cache clear`"
    assert text in str(said[0].message)
    cache.store("kind", KEY, {"x": 2})
    assert cache.load("kind", KEY) == {"x": 2}


def test_keys_keep_their_parts_apart():
    assert cache.cache_key("ab", "c") != cache.cache_key("a", "bc")
    assert cache.cache_key("a", "b") != cache.cache_key("b", "a")
    assert cache.cache_key("a", 1) == cache.cache_key("a", "1")


def test_the_directory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTOTM_JAX_CACHE", "~/somewhere")
    assert cache.cache_directory() == Path.home() / "somewhere"
    monkeypatch.delenv("AUTOTM_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_directory() == Path("/xdg/autotm-jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_directory() == Path.home() / ".cache" / "autotm-jax"


def test_a_directory_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Below a regular file not even root can make a directory.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOTM_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(AutoTMWarning) as caught:
        cache.store("kind", KEY, 1)
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith(f"The cache directory {tmp_path / 'file' / 'cache'} cannot")
    assert text.endswith(
        "so costs and plans are worked out again in the next process. Set "
        "AUTOTM_JAX_CACHE to a directory that can be written."
    )
    assert cache.load("kind", KEY) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.store("kind", KEY, 1)


_WRITER = """
import sys
from autotm_jax.profile import cache
for i in range(50):
    cache.store("kind", cache.cache_key(i), {"from": sys.argv[1], "i": i})
"""


def test_processes_do_not_disturb_each_other(own_cache: Path):
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, name], env=dict(os.environ))
        for name in "ab"
    ]
    assert [w.wait(timeout=120) for w in writers] == [0, 0]
    for i in range(50):
        entry = cache.load("kind", cache.cache_key(i))
        assert entry is not None
        assert entry["i"] == i
    assert len(files(own_cache)) == 50  # and no temporary files


def test_a_full_disk(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.json, "dump", refuse)
    cache._say_unwritable.cache_clear()
    with pytest.warns(AutoTMWarning, match="No space left on device"):
        cache.store("kind", KEY, {"x": 1})
    assert cache.load("kind", KEY) is None
    assert files(own_cache) == []


def test_an_entry_that_is_no_json_leaves_nothing_behind(own_cache: Path):
    with pytest.raises(TypeError):
        cache.store("kind", KEY, object())
    assert files(own_cache) == []


def test_what_it_holds(own_cache: Path):
    assert cache.info() == cache.CacheInfo(own_cache, {}, {})
    cache.store("time", KEY, 1)
    cache.store("plan", KEY, [1, 2])
    cache.store("plan", cache.cache_key("b"), [1, 2])
    found = cache.info()
    assert found.entries == {"time": 1, "plan": 2}
    assert found.nbytes == {"time": 1, "plan": 12}
    assert str(found).splitlines()[0] == f"{own_cache}: 3 entries"


def test_clearing(own_cache: Path):
    cache.store("time", KEY, 1)
    (path,) = files(own_cache)
    recent, old = path.with_name("tmpnew.tmp"), path.with_name("tmpold.tmp")
    foreign = path.with_name("package.json")
    foreign.write_text("{}")
    recent.write_text("{")
    old.write_text("{")
    os.utime(old, (0, 0))
    assert cache.clear() == 1
    # What another process may be writing stays.
    assert sorted(files(own_cache)) == sorted([recent, foreign])


WORKER = """
import itertools, sys
from autotm_jax.profile import cache
for i in itertools.count(int(sys.argv[1])):
    with cache.alone("device"):
        key = cache.cache_key(i)
        if cache.load("time", key) is None:
            cache.store("time", key, {"number": i, "text": "x" * 5000})
    print(i, flush=True)
"""


def test_killed_processes_lose_what_is_in_flight_and_nothing_else(own_cache: Path):
    rng = random.Random(0)
    said: set[int] = set()
    for start in (0, 10_000, 20_000):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(start + part)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "AUTOTM_JAX_CACHE": str(own_cache)},
            )
            for part in (0, 5)
        ]
        for worker in workers:
            assert worker.stdout is not None
            said.add(int(worker.stdout.readline()))
        time.sleep(rng.uniform(0, 0.05))
        for worker in workers:
            worker.kill()
            out, _ = worker.communicate()
            # The last line may have been cut short.
            said.update(int(line) for line in out.split("\n")[:-1])
    # Nobody holds the lock, every entry that was told is there, and all are whole.
    with cache.alone("device"):
        for number in said:
            entry = cache.load("time", cache.cache_key(number))
            assert entry == {"number": number, "text": "x" * 5000}
    whole = [json.loads(p.read_text()) for p in own_cache.glob("time/*/*.json")]
    assert len(whole) >= len(said) >= 6


def test_one_at_a_time(own_cache: Path):
    pytest.importorskip("fcntl", reason="this system has no such locks")
    held = "from autotm_jax.profile import cache\nwith cache.alone('x'): print(1)"
    run = [sys.executable, "-c", held]
    env = {**os.environ, "AUTOTM_JAX_CACHE": str(own_cache)}
    with cache.alone("x"):
        other = subprocess.Popen(run, stdout=subprocess.PIPE, text=True, env=env)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=4)
    assert other.communicate(timeout=60)[0] == "1\n"


def test_without_a_lock_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entered: list[str] = []
    # Below a regular file not even root can make a directory.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOTM_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with cache.alone("x"), cache.alone("x"):
        entered.append("without a directory")
    monkeypatch.setattr(cache, "fcntl", None)
    monkeypatch.setenv("AUTOTM_JAX_CACHE", str(tmp_path / "cache"))
    with cache.alone("x"), cache.alone("x"):
        entered.append("without locks")
    assert entered == ["without a directory", "without locks"]
    assert not (tmp_path / "cache").exists()
