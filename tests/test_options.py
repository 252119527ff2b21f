from typing import Any

import pytest

from autotm_jax import compat
from autotm_jax.compile import compiler_options


def disabled(platform: str) -> list[str]:
    """The passes of XLA that a planned step is compiled without."""
    options: dict[str, Any] = compiler_options(platform)
    assert set(options) == {"xla_disable_hlo_passes"}
    return options["xla_disable_hlo_passes"].split(",")


@pytest.mark.parametrize("is_wrong", [False, True])
def test_where_slices_of_host_stacks_are_wrong_a_pass_is_disabled(
    is_wrong: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compat, "READS_WRONG_SLICES", is_wrong)
    wanted = ["rematerialization", *["dynamic-slice-annotator"] * is_wrong]
    assert disabled("cuda") == wanted
    # Nothing is read from a host there.
    assert "dynamic-slice-annotator" not in disabled("cpu")


def test_barriers_of_small_loops_stay_out_of_kernels():
    assert disabled("cpu") == ["cse_barrier_expander", "small-while-loop-hoisting"]


def test_nothing_is_said_to_other_platforms():
    assert compiler_options("tpu") == {}
