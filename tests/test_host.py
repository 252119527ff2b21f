"""Pinned host memory."""

from __future__ import annotations

import pytest

from autotm_jax.machine import PINNED_CAP, host, pinned_bytes


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
