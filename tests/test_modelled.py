"""Modelled time of steps that `autotm.jit` had no part in."""

import dataclasses

import pytest

from autotm_jax.machine import Target, describe
from benchmarks.baselines import CHECKPOINT_POLICIES
from benchmarks.modelled import compute_seconds
from benchmarks.workloads import gpt


H100 = Target(describe("h100-sxm"), "")


@pytest.mark.parametrize("scanned", [False, True])
def test_what_is_computed_again_is_counted_and_copies_are_not(scanned: bool):
    def seconds(policy: str | None) -> float | None:
        remat = None if policy is None else CHECKPOINT_POLICIES[policy]
        config = dataclasses.replace(gpt.TINY, scanned=scanned, remat=remat)
        return compute_seconds(gpt.workload(config), H100)

    plain, full = seconds(None), seconds("nothing_saveable")
    assert plain is not None and full is not None and full > plain
    # A step that copies has no price, in a loop or outside of one.
    assert seconds("offload_layer_inputs") is None
    assert seconds("offload_dot_with_no_batch_dims") is None
