"""Pinned host memory."""

from __future__ import annotations

import pytest

from autotm_jax.machine import (
    PINNED_CAP,
    describe,
    host,
    pinned_bytes,
    with_lent_memory,
)


@pytest.mark.parametrize(
    ("said", "there", "lent"),
    [
        (None, 500, 64),
        ("200", 500, 200),
        ("200", 100, 100),
        ("much", 500, 64),
        ("8", 0, 8),
    ],
)
def test_no_more_is_lent_than_there_is(
    monkeypatch: pytest.MonkeyPatch, said: str | None, there: int, lent: int
):
    monkeypatch.setattr(host, "physical_bytes", lambda: there * 2**30)
    monkeypatch.delenv(PINNED_CAP, raising=False)
    if said is not None:
        monkeypatch.setenv(PINNED_CAP, said)
    assert pinned_bytes() == lent * 2**30


@pytest.mark.parametrize(
    ("name", "devices", "expected"),
    [("gh200", 1, 64 * 2**30), ("h100-sxm", 8, 8 * 2**30), ("cpu", 8, 0)],
)
def test_the_gpus_of_a_process_share_what_is_lent(
    monkeypatch: pytest.MonkeyPatch, name: str, devices: int, expected: int
):
    monkeypatch.setattr(host, "pinned_bytes", lambda: 64 * 2**30)
    assert with_lent_memory(describe(name), devices).host_bytes == expected
