"""Models that nothing was tuned to: same values, and no more memory than is given."""

from __future__ import annotations

import warnings

import jax
import pytest

import autotm_jax as autotm

from .compiling import needs_cuda_plugin
from .models import MODELS, Sizes
from .steps import assert_close


@pytest.mark.parametrize("name", MODELS)
def test_values_are_those_of_plain_jit(name: str):
    step, state, batch = MODELS[name](Sizes())
    with warnings.catch_warnings():
        warnings.simplefilter("error", autotm.AutoTMWarning)
        ours = autotm.jit(step, budget="min")
        found = ours(state, batch)
    wanted = jax.jit(step)(state, batch)
    assert not ours.plan(state, batch).is_untouched
    # Half precision rounds otherwise where operations are fused otherwise.
    assert_close(found[1], wanted[1], 1e-2)
    for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype


@needs_cuda_plugin
@pytest.mark.parametrize("name", MODELS)
def test_memory_is_within_the_budget_and_as_predicted(name: str):
    sizes = Sizes(layers=4, width=256, length=128, batch=8)
    if name == "channels_first":
        sizes = Sizes(layers=4, width=64, length=32, batch=32)
    step, state, batch = MODELS[name](sizes)
    args = jax.eval_shape(lambda: (state, batch))
    ours = autotm.jit(step, budget=0.6, target="h100-sxm", donate_argnums=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", autotm.AutoTMWarning)
        plan = ours.verify(*args)
    assert not plan.is_untouched
    assert plan.realised is not None and plan.budget is not None
    assert plan.realised.device_bytes <= plan.budget
    assert plan.realised.device_bytes == pytest.approx(plan.device_bytes, rel=0.05)
