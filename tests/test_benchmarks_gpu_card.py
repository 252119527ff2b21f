"""The card that is here, and what processes on it are told."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu import card as module
from benchmarks.gpu.asking import ask
from benchmarks.gpu.card import (
    Card,
    CardError,
    environment,
    parse_card,
    present_card,
)


GIB = 2**30


def test_a_card_is_read():
    found = parse_card("NVIDIA H100, 80GB HBM3, 81559, 81000")
    assert found == Card("NVIDIA H100, 80GB HBM3", 81559 * 2**20, 81000 * 2**20)
    with pytest.raises(CardError) as caught:
        parse_card("NVIDIA GB10, [N/A], [N/A]")
    assert str(caught.value) == (
        "The driver says 'NVIDIA GB10, [N/A], [N/A]', where a name and two sizes in "
        "MiB were expected. Compile for a card that is not here with --target "
        "h100-sxm, or measure one whose memory is reported."
    )


def test_no_more_than_is_free_is_taken():
    assert Card("a", 80 * GIB, 80 * GIB).fraction == 0.92
    some = Card("a", 80 * GIB, 60 * GIB)
    assert some.fraction * some.total <= some.free - GIB
    with pytest.raises(CardError, match="only 30,720 MiB are free.*nvidia-smi lists"):
        _ = Card("a", 80 * GIB, 30 * GIB).fraction


def test_the_environment_of_a_process(tmp_path: Path):
    ours = {
        "PATH": "/bin",
        "JAX_PLATFORMS": "cpu",
        "TF_FORCE_UNIFIED_MEMORY": "1",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "4",
    }
    some = Card("a", 80 * GIB, 60 * GIB)
    on_gpu = environment("gpu", some, tmp_path, ours)
    assert on_gpu["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
    assert on_gpu["XLA_CLIENT_MEM_FRACTION"] == "0.73"
    assert on_gpu["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "jax")
    assert on_gpu["PATH"] == "/bin"
    # Neither managed memory nor a platform that was set for something else.
    gone = ("TF_FORCE_UNIFIED_MEMORY", "XLA_PYTHON_CLIENT_MEM_FRACTION")
    assert not {*gone, "JAX_PLATFORMS"} & {*on_gpu}
    for platform in ("cpu", None):
        assert environment(platform, None, tmp_path, ours)["JAX_PLATFORMS"] == "cpu"


def answers(monkeypatch: pytest.MonkeyPatch, **said: Any) -> list[list[str]]:
    """Makes `nvidia-smi` answer so; returns how it is asked."""
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(command)
        return SimpleNamespace(**{"returncode": 0, "stdout": "", **said})

    monkeypatch.setattr(module.shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(module.subprocess, "run", run)
    return asked


def test_the_card_that_cuda_would_use(monkeypatch: pytest.MonkeyPatch):
    asked = answers(monkeypatch, stdout="H100, 100, 90\nH200, 200, 190\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = present_card()
    assert found is not None and found.name == "H100"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    present_card()
    assert [any("--id" in word for word in one) for one in asked] == [False, True]
    assert "--id=3" in asked[-1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert present_card() is None


def test_there_may_be_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asked = answers(monkeypatch, returncode=9)
    assert present_card() is None
    # Without nvidia-smi, the driver itself is asked.
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert present_card() is None
    assert asked[-1][1:] == ["-m", "benchmarks.gpu.asking"]


class Driver:
    """CUDA's driver with one card, or one that returns an error from a call."""

    def __init__(self, fails: str = ""):
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self.fails:
                return 100
            if name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA H100"
            if name == "cuMemGetInfo_v2":
                free, total = arguments
                free._obj.value, total._obj.value = 7 * GIB, 8 * GIB
            return 0

        return call


def test_the_driver_is_asked():
    line = ask(Driver())
    assert parse_card(line) == Card("NVIDIA H100", 8 * GIB, 7 * GIB)
    with pytest.raises(
        RuntimeError, match="^cuDeviceGet of CUDA's driver returned 100"
    ):
        ask(Driver("cuDeviceGet"))


def test_a_driver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answers(monkeypatch)

    def late(command: list[str], **options: Any) -> Any:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(module.subprocess, "run", late)
    with pytest.raises(CardError, match="did not answer within 60 s. See whether"):
        present_card()
