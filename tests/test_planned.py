"""What XLA cannot compile for a device that is not here, and can in another way."""

import re
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import AutoTMWarning, compat

from .compiling import needs_cuda_plugin
from .steps import chain_arguments, chain_step


NO_TILES = "Couldn't find output tile sizes that satisfy hlo: %dot.8"

SAID = (
    f"JAX {compat.JAX_VERSION} cannot compile a matmul of {chain_step.__name__} for "
    "h100-sxm as it would where that is: Triton would write it, and tries out tiles "
    "for that. So it is compiled without Triton, which takes somewhat more or less "
    "memory than with it. JAX 0.12 has no need to."
)


def attention_step(state: Any, x: Any) -> Any:
    """Layers of attention over 49 tokens, which are no multiple of any tile."""

    def loss(state: Any) -> Any:
        y = x
        for w in state:
            q = y.reshape(*y.shape[:2], 4, -1)
            scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, q))
            y = y + jnp.einsum("bhqk,bkhd->bqhd", scores, q).reshape(y.shape) @ w
        return (y.astype(jnp.float32) ** 2).mean()

    value, gradients = jax.value_and_grad(loss)(state)
    return jax.tree.map(lambda w, g: w - g, state, gradients), value


def attention_arguments() -> Any:
    """Abstract ones, of four layers."""
    half = jnp.bfloat16
    state = [jax.ShapeDtypeStruct((256, 256), half)] * 4
    return state, jax.ShapeDtypeStruct((64, 49, 256), half)


@needs_cuda_plugin
@pytest.mark.parametrize("budget", [0.7, "min", "64MiB"])
def test_attention_over_any_number_of_tokens_is_planned(budget: Any):
    args = attention_arguments()
    step = autotm.jit(
        attention_step, budget=budget, target="h100-sxm", donate_argnums=0
    )
    abstract = autotm.target("h100-sxm").place(args)
    try:
        jax.jit(attention_step).lower(*abstract).compile()
        is_compiled = True
    except jax.errors.JaxRuntimeError as error:
        assert compat.lacks_tiles(error)
        is_compiled = False
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", AutoTMWarning)
        plan = step.verify(*args)
        compiled = step.lower(*args).compile()
    texts = [str(w.message) for w in said if w.category is AutoTMWarning]
    assert all("compiled without Triton" in text for text in texts)
    assert len(texts) == (0 if is_compiled else 1)
    assert plan.realised is not None
    assert autotm.device_bytes(compiled) == plan.realised.device_bytes
    if budget == "64MiB":
        assert plan.realised.device_bytes <= 64 * 2**20


def failing_at_first(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Lets XLA find no tiles the first time that a module asks it for memory."""
    module = sys.modules[f"autotm_jax.{name}"]
    whole, calls = module.assign, []

    def failing(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise RuntimeError(NO_TILES)
        return whole(*given, **more)

    monkeypatch.setattr(module, "assign", failing)


def written_by(step: Any, args: Any) -> set[str]:
    """Who writes the matmuls of a step."""
    text = step.lower(*args).compile().as_text()
    return {name for name in ("cublas", "triton_nested_gemm") if name in text}


@needs_cuda_plugin
def test_all_is_planned_again_without_triton(
    own_cache: object, monkeypatch: pytest.MonkeyPatch
):
    args = chain_arguments(layers=4, width=256, batch=4096)
    usual = autotm.jit(chain_step, budget="min", target="h100-sxm")
    assert written_by(usual, args) == {"triton_nested_gemm"}
    failing_at_first(monkeypatch, "step")
    step = autotm.jit(chain_step, budget="min", target="h100-sxm")
    with pytest.warns(AutoTMWarning, match=f"^{re.escape(SAID)}$") as said:
        plan = step.verify(*args)
    assert len([w for w in said if w.category is AutoTMWarning]) == 1
    assert plan.realised is not None and not plan.is_untouched
    assert written_by(step, args) == {"cublas"}


@needs_cuda_plugin
def test_a_segment_alone_is_asked_for_without_triton(
    own_cache: object, monkeypatch: pytest.MonkeyPatch, strict: None
):
    args = chain_arguments(layers=4, width=256, batch=4096)
    failing_at_first(monkeypatch, "profile.workspace")
    plan = autotm.jit(chain_step, budget="min", target="h100-sxm").verify(*args)
    assert plan.realised is not None and not plan.is_untouched
    assert "estimated" not in str(plan)


@needs_cuda_plugin
def test_what_the_user_says_of_triton_stands(
    own_cache: object, monkeypatch: pytest.MonkeyPatch
):
    failing_at_first(monkeypatch, "planned")
    options = {"xla_gpu_enable_triton_gemm": True}
    step = autotm.jit(
        chain_step, budget=0.9, target="h100-sxm", compiler_options=options
    )
    with pytest.warns(AutoTMWarning, match="without a budget.*tile sizes"):
        plan = step.plan(*chain_arguments())
    assert plan.status is autotm.Status.UNSUPPORTED


def test_on_a_device_that_is_here_it_is_a_failure_like_others(
    monkeypatch: pytest.MonkeyPatch,
):
    def failing(*_: Any) -> Any:
        raise RuntimeError(NO_TILES)

    monkeypatch.setattr(sys.modules["autotm_jax.planned"], "emit", failing)
    with pytest.warns(AutoTMWarning, match="runs as jax.jit would.*tile sizes"):
        autotm.jit(chain_step, budget="min")(*chain_arguments())
