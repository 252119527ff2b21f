import argparse

import pytest

import autotm_jax as autotm
from autotm_jax.solve import SolverOptions
from benchmarks import solving

from .compiling import needs_cuda_plugin
from .steps import get


def test_a_row_holds_what_was_asked_and_what_was_found(own_cache):
    cells = [("gpt-tiny", "0.9"), ("gpt-tiny", solving.TIGHT), ("gpt-tiny", "1KiB")]
    options = SolverOptions(time_limit=10.0, gap=0.01)
    half, tight, none = solving.table(cells, autotm.target(), options, is_cold=False)
    assert {row.segments for row in (half, tight, none)} == {half.segments}
    assert (
        half.budget_bytes - half.limit_bytes == tight.budget_bytes - tight.limit_bytes
    )
    assert half.least_seconds is None and half.least_bytes is None
    assert tight.least_seconds is not None and tight.least_status == "optimal"
    assert tight.least_bytes is not None
    assert tight.limit_bytes == pytest.approx(1.15 * tight.least_bytes, abs=1)
    for row in (half, tight):
        assert row.status == "optimal"
        assert row.seconds is not None and row.gap is not None and row.gap <= 0.01
        assert row.seconds >= row.unconstrained_seconds * (1 - 1e-9)
        assert row.cold_seconds is None
    assert tight.limit_bytes < half.limit_bytes
    assert tight.seconds is not None and half.seconds is not None
    assert tight.seconds >= half.seconds
    assert none.status == "infeasible" and none.seconds is None and none.gap is None
    shown = [cell.strip() for cell in solving.line(none).split("|")[1:-1]]
    assert shown[:2] == ["gpt-tiny", "1KiB"]
    assert shown[-4:] == ["-", "-", "-", "infeasible"]


@needs_cuda_plugin
def test_the_cold_figure_comes_from_a_cache_of_its_own(own_cache):
    found = solving.posed(get("mlp-tiny"), autotm.target("h100-sxm"), is_cold=True)
    # Compiled the first time, read the second, and nothing is left behind.
    assert found.cold_seconds is not None
    assert found.cold_seconds > found.cached_seconds
    assert ", 0 compiled now" in found.candidate.costs.memory_source
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("gpt-13:0.5", "no workload 'gpt-13'; there are gpt-12, "),
        ("gpt-12:1.5", "budget is 1.5: a float is a fraction and lies in (0, 1]. "),
        ("gpt-12:min", "'gpt-12:min': ask for 'tight' instead"),
    ],
)
def test_a_cell_that_cannot_be_read(cell: str, reason: str):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        solving._named(cell)
    assert str(caught.value).startswith(reason)


def test_a_budget_is_bytes_a_size_or_a_fraction():
    assert [solving._size(text) for text in ("4096", "8GiB", "0.5")] == [
        4096,
        "8GiB",
        0.5,
    ]
