import pytest

from autotm_jax.report.wording import ranges, said, span_of_sizes, span_of_times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0861, "86.10 ms"),
        (1.5, "1,500.00 ms"),
        (1e-4, "0.10 ms"),
        (9.999e-5, "0.10 ms"),
        (9.98e-5, "99.8 µs"),
        (1.24e-5, "12.4 µs"),
        (-1.24e-5, "-12.4 µs"),
        (0.0, "0 ms"),
        (-1e-17, "0 ms"),
    ],
)
def test_seconds(seconds: float, text: str):
    assert said(seconds) == text
    signed = text if seconds < 0 or text == "0 ms" else f"+{text}"
    assert said(seconds, sign=True) == signed


def test_spans_say_a_common_unit_once():
    assert span_of_times([2e-4, 1e-4, 3e-4], sign=True) == "+0.10 to +0.30 ms"
    assert span_of_times([-1e-5, 1e-3], sign=True) == "-10.0 µs to +1.00 ms"
    assert span_of_times([2e-4, 2.001e-4]) == "0.20 ms"
    assert span_of_sizes([2**20, 2**21]) == "1.0 to 2.0 MiB"
    assert span_of_sizes([512, 2**20]) == "512 B to 1.0 MiB"


@pytest.mark.parametrize(
    ("numbers", "among", "text"),
    [
        ([3], range(9), "layer 3"),
        ([0, 1, 2], range(9), "layers 0-2"),
        ([0, 1, 2, 5, 7, 8], range(9), "layers 0-2, 5, 7-8"),
        ([0, 2, 4, 6], range(9), "some of layers 0-6"),
        ([4, 9, 20], [4, 9, 12, 20], "layers 4-9, 20"),
    ],
)
def test_ranges_skip_nothing(numbers: list[int], among: list[int], text: str):
    assert ranges("layer", numbers, among) == text
