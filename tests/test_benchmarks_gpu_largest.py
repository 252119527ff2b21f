"""The largest batch that fits."""

from typing import Any

import numpy as np
import pytest

from autotm_jax.machine import Target, describe
from benchmarks.gpu import largest as module
from benchmarks.gpu.cases import SMALL
from benchmarks.gpu.largest import fitting, largest
from benchmarks.gpu.prepared import Prepared
from benchmarks.gpu.row import Row
from benchmarks.gpu.ways import PLAIN


H100 = Target(describe("h100-sxm"), "")


@pytest.mark.parametrize("limit", [130, 1000, 1001, 1009, 12345])
@pytest.mark.parametrize("step", [1, 4])
def test_of_what_is_affine(limit: int, step: int):
    found, tried = largest(lambda batch: 100 + 5 * batch, 4, limit, step, 10)
    assert found == (limit - 100) // 5 // step * step
    assert len(tried) <= 5


def test_of_what_is_nearly_affine():
    def nbytes(batch: int) -> int:
        return 1000 + 37 * batch + 90 * (batch // 7)

    found, _ = largest(nbytes, 8, 50_000, 1, 12)
    assert found is not None
    assert nbytes(found) <= 50_000 < nbytes(found + 1)


def test_what_does_not_compile_does_not_fit():
    def nbytes(batch: int) -> int | None:
        return None if batch > 20 else 10 * batch

    found, tried = largest(nbytes, 16, 10**6, 1, 6)
    assert found == 20
    assert tried == {16: 160, 32: None, 24: None, 20: 200, 22: None, 21: None}


def test_nothing_fits():
    found, tried = largest(lambda batch: 100 * batch, 4, 50, 1, 6)
    assert found is None
    assert 1 in tried


def test_tries_are_limited():
    calls: list[int] = []

    def nbytes(batch: int) -> int:
        calls.append(batch)
        return batch**2

    largest(nbytes, 2, 10**9, 1, 3)
    assert len(calls) == 3


def test_near_the_limit_bytes_may_be_saved():
    def nbytes(batch: int) -> int:
        return 100 * batch if batch < 50 else 5000 + 10 * (batch - 50)

    found, tried = largest(lambda b: nbytes(b) * (1 + (b > 90)), 16, 7800, 2, 10)
    assert found == 90
    assert len(tried) <= 9


def test_what_is_known_is_not_asked_for():
    calls: list[int] = []

    def nbytes(batch: int) -> int:
        calls.append(batch)
        return 100 + 7 * batch

    found, tried = largest(nbytes, 16, 1000, 2, 10, {0: 90, 16: 212})
    assert found == 128
    assert calls == [118, 128, 130]
    assert tried == {16: 212, 118: 926, 128: 996, 130: 1010}


def test_no_try_begins_without_time():
    found, tried = largest(
        lambda batch: batch, 8, 100, 1, 9, left=iter([9.0, -1.0]).__next__
    )
    assert (found, tried) == (8, {8: 8})


def test_a_batch_is_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch):
    tried: list[int] = []

    def prepare(case: Any, batch: int, *rest: Any) -> Prepared:
        tried.append(batch)
        if batch > 32:
            raise RuntimeError("RESOURCE_EXHAUSTED: while it was compiled")
        return Prepared(Row(case.name, batch, "", device_bytes=10 * batch), print)

    monkeypatch.setattr(module, "prepare", prepare)
    case = SMALL["adam-16"]
    batch, found = fitting(case, PLAIN, H100, 200)
    assert tried == [64, 32, 16]
    assert batch == 16 and found is not None and found.row.device_bytes == 160
    # The smallest, if nothing fits.
    batch, found = fitting(case, PLAIN, H100, 1)
    assert batch == 1 and found is not None

    def fails(*rest: Any) -> Prepared:
        raise TypeError("it is no matter of memory")

    monkeypatch.setattr(module, "prepare", fails)
    with pytest.raises(TypeError, match="no matter of memory"):
        fitting(case, PLAIN, H100, 200)


def test_what_xla_computes_again_is_no_line_to_follow():
    known = {0: 1763, 16: 24816}
    bent = {50: 57816, 66: 58163, 132: 125_000, 98: 80_000}
    found, tried = largest(bent.__getitem__, 16, 74_527, 2, 4, known)
    assert list(tried) == [16, 50, 66, 132, 98]
    assert found == 66


def test_where_xla_computes_again_the_usual_tries_are_enough():
    # MiB of GPT-12 as XLA compiles it for a card of 74,527 MiB; beyond, straight on.
    batches = [0, 16, 56, 72, 76, 80, 84, 88, 96, 196]
    mebibytes = [1763, 24816, 57794, 58678, 60759, 63058, 66123, 68660, 72842, 124_842]

    def nbytes(batch: int) -> int:
        return int(np.interp(batch, batches, mebibytes))

    found, _ = largest(nbytes, 16, 74_527, 2, known={0: 1763})
    assert found == 98
