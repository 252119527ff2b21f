"""The largest batch that fits."""

import pytest

from benchmarks.gpu.largest import largest


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
