import os
import subprocess
import sys
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
    assert cache.load("kind", KEY) is None
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
