"""Steps that run as `jax.jit` would, and what is said of that."""

import functools
import itertools
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import autotm_jax as autotm
from autotm_jax import AutoTMError, AutoTMWarning, Status

from .meshes import mesh
from .steps import assert_close, chain, chain_arguments, chain_step


ARGUMENTS = chain_arguments()
min_jit = functools.partial(autotm.jit, budget="min")


def test_a_step_without_arrays_warns_and_runs():
    seen = []
    step = min_jit(lambda x: jax.debug.callback(seen.append, x.sum()))
    with pytest.warns(AutoTMWarning, match="it returns no arrays"):
        assert step(jnp.ones(3)) is None
    jax.effects_barrier()
    assert [float(x) for x in seen] == [3.0]
    assert step.plan(jnp.ones(3)).status is Status.UNSUPPORTED


def test_a_step_with_mutable_arrays_runs_as_it_is():
    def step(x: Any, weights: Any) -> Any:
        total = jax.new_ref(jnp.zeros(()))
        loss, gradients = jax.value_and_grad(chain, argnums=1)(x, weights)
        for gradient in gradients:
            total[...] += gradient.sum()
        return loss, gradients, total[...]

    planned = autotm.jit(step, budget="min")
    with pytest.warns(AutoTMWarning, match="mutable arrays \\(jax.Ref\\)"):
        found = planned(*ARGUMENTS)
    assert_close(found, jax.jit(step)(*ARGUMENTS))
    assert planned.plan(*ARGUMENTS).status is Status.UNSUPPORTED


def test_a_step_that_is_one_shard_map_over_a_part_of_a_mesh_runs_as_it_is():
    over = mesh(rows=2, model=2)
    specs = {"in_specs": (P("rows"), P()), "out_specs": (P(), P())}
    specs |= {"axis_names": {"rows"}}
    arguments = jax.device_put(ARGUMENTS, NamedSharding(over, P()))

    def mapped(x: Any, weights: Any) -> Any:
        loss, gradients = jax.value_and_grad(chain, argnums=1)(x, weights)
        return jax.lax.pmean((loss, gradients), "rows")

    step = jax.shard_map(mapped, mesh=over, check_vma=False, **specs)
    planned = autotm.jit(step, budget="min")
    text = (
        "all of it is one jax.shard_map that stays whole. Let it be over all axes of "
        "its mesh, without arrays in host memory or unreduced sums in it"
    )
    with pytest.warns(AutoTMWarning, match=text):
        found = planned(*arguments)
    assert_close(found, jax.jit(step)(*arguments))
    assert planned.plan(*arguments).status is Status.UNSUPPORTED


def test_a_step_that_cannot_be_written_out(monkeypatch: pytest.MonkeyPatch):
    def flatten(closed: Any, loops: bool) -> Any:
        raise KeyError("a primitive from tomorrow")

    monkeypatch.setattr("autotm_jax.unsupported.flatten", flatten)
    planned = autotm.jit(chain_step, budget="min")
    text = "without a budget: KeyError: 'a primitive from tomorrow'"
    with pytest.warns(AutoTMWarning, match=text):
        found = planned(*ARGUMENTS)
    assert_close(found, jax.jit(chain_step)(*ARGUMENTS))
    assert planned.plan(*ARGUMENTS).status is Status.UNSUPPORTED


@pytest.mark.parametrize("changes", [1, 2, 100])
def test_a_step_that_jax_traces_anew(monkeypatch: pytest.MonkeyPatch, changes: int):
    # As the import of a language for kernels does, once.
    precisions = "high", "highest", "default", "float32", "tensorfloat32", "bfloat16"
    every = itertools.product(("warn", "raise", "allow"), precisions)
    settings = itertools.islice(every, changes)
    module = sys.modules["autotm_jax.planned"]
    emit = module.emit

    def changing(*args: Any) -> Any:
        if (setting := next(settings, None)) is not None:
            jax.config.update("jax_numpy_rank_promotion", setting[0])
            jax.config.update("jax_default_matmul_precision", setting[1])
        return emit(*args)

    monkeypatch.setattr(module, "emit", changing)
    args = chain_arguments()
    usual = jax.config.jax_default_matmul_precision
    planned = min_jit(chain_step)
    try:
        if changes < 100:
            with warnings.catch_warnings():
                warnings.simplefilter("error", AutoTMWarning)
                found = planned(*args)
            assert not planned.plan(*args).is_untouched
        else:
            with pytest.warns(AutoTMWarning, match="anew whenever it is compiled"):
                found = planned(*args)
            with pytest.raises(AutoTMError, match="look for jax.config.update"):
                planned.lower(*args)
    finally:
        jax.config.update("jax_default_matmul_precision", usual)
        jax.config.update("jax_numpy_rank_promotion", "allow")
    assert_close(found, jax.jit(chain_step)(*args))


def test_a_plan_that_does_not_compile_is_given_up(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> Any:
        raise ValueError("no such thing")

    monkeypatch.setattr(sys.modules["autotm_jax.planned"], "emit", broken)
    args = chain_arguments()
    step = min_jit(chain_step)
    with pytest.warns(AutoTMWarning, match="runs as jax.jit would.*no such thing"):
        found = step(*args)
    assert_close(found, chain_step(*args))
    assert step.plan(*args).status is Status.UNSUPPORTED
