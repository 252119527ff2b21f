"""What `autotm.jit` returns: its plans, its budgets, and the face of `jax.jit`."""

import functools
import re
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autotm_jax as autotm
from autotm_jax import (
    InfeasibleBudget,
    Status,
    TargetError,
)

from .compiling import needs_cuda_plugin
from .steps import assert_close, chain_arguments, chain_step, get


min_jit = functools.partial(autotm.jit, budget="min")


# New shapes, new plans.


def test_new_shapes_are_planned_anew(strict: None):
    step = min_jit(chain_step)
    for batch in (64, 32, 64):
        args = chain_arguments(batch=batch)
        assert_close(step(*args), jax.jit(chain_step)(*args))
    first = step.plan(*chain_arguments(batch=64))
    second = step.plan(*chain_arguments(batch=32))
    assert first.realised is not None and second.realised is not None
    assert first.device_bytes != second.device_bytes


def test_later_calls_do_not_trace(strict: None):
    traced = []

    def step(x: Any, weights: Any) -> Any:
        traced.append(1)
        return chain_step(x, weights)

    planned = min_jit(step)
    args = chain_arguments()
    planned(*args)
    after_first = len(traced)
    assert after_first <= 2
    for _ in range(3):
        planned(*args)
    assert len(traced) == after_first
    planned.clear_cache()
    planned(*args)
    assert len(traced) > after_first


def test_threads(quiet: None):
    step = min_jit(chain_step)
    arguments = [chain_arguments(batch=b) for b in (16, 32, 48, 64)]
    wanted = [jax.jit(chain_step)(*a) for a in arguments]
    found: dict[int, Any] = {}

    def work(i: int) -> None:
        found[i] = step(*arguments[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, out in enumerate(wanted):
        assert_close(found[i], out)


def test_contexts_are_not_confused(strict: None):
    def precisions(text: str) -> set[str]:
        return set(re.findall(r"precision=\S+", text.replace("(", "").replace(",", "")))

    step = min_jit(chain_step)
    args = chain_arguments()
    default = step(*args)
    with jax.default_matmul_precision("highest"):
        highest = step(*args)
        text = str(step.trace(*args).jaxpr)
    assert "HIGHEST" in text
    assert "HIGHEST" not in str(step.trace(*args).jaxpr)
    assert_close(highest, default)
    with jax.enable_x64(True):
        wide = [np.asarray(args[0], np.float64), [np.float64(w) for w in args[1]]]
        loss, grads = step(*wide)
        assert loss.dtype == grads[0].dtype == np.float64
    assert step(*args)[0].dtype == np.float32


# The attributes of a jitted function.


def test_lower_and_compile(strict: None):
    step = min_jit(chain_step)
    args = chain_arguments()
    compiled = step.lower(*args).compile()
    assert isinstance(compiled, jax.stages.Compiled)
    assert_close(compiled(*args), jax.jit(chain_step)(*args))
    plan = step.plan(*args)
    assert plan.realised is not None
    assert plan.realised.device_bytes == autotm.device_bytes(compiled)
    assert plan.realised.host_bytes == autotm.host_bytes(compiled)


def test_lower_with_abstract_arguments(strict: None):
    step = min_jit(chain_step)
    args = chain_arguments()
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
    compiled = step.lower(*shapes).compile()
    assert_close(compiled(*args), jax.jit(chain_step)(*args))


def test_trace(strict: None):
    step = min_jit(chain_step)
    traced = step.trace(*chain_arguments())
    assert isinstance(traced, jax.stages.Traced)
    assert "optimization_barrier" in str(traced.jaxpr)


def test_eval_shape():
    step = min_jit(chain_step)
    args = chain_arguments()
    assert step.eval_shape(*args) == jax.jit(chain_step).eval_shape(*args)


def test_plan_takes_arrays_and_shapes(strict: None):
    step = min_jit(chain_step)
    args = chain_arguments()
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
    plan = step.plan(*shapes)
    assert plan is step.plan(*args)
    assert plan.realised is None
    assert plan.status is Status.OPTIMAL
    step(*args)
    used = step.plan(*shapes)
    assert used.realised is not None
    assert used.schedule == plan.schedule


# A budget that fits changes nothing.


@pytest.mark.parametrize("budget", ["1TiB", None, 1.0])
def test_a_loose_budget_changes_nothing(budget: Any, strict: None):
    workload = get("mlp-tiny")
    step = autotm.jit(workload.step, budget=budget, donate_argnums=0)
    plain = jax.jit(workload.step, donate_argnums=0)
    assert step.plan(*workload.args).status is Status.UNTOUCHED
    assert step.plan(*workload.args).is_untouched
    found, wanted = step.trace(*workload.args), plain.trace(*workload.args)
    assert str(found.jaxpr) == str(wanted.jaxpr)

    def text(lowered: Any) -> str:
        # Without the name of the module, and tables and marks of source lines.
        hlo = lowered.compile().as_text()
        header, _, body = hlo.partition("\n\n")
        body = body[body.index("\n%") if "\n%" in body else 0 :]
        header = re.sub(r"HloModule \S+", "", header)
        return header + re.sub(r"metadata=\{[^}]*\}", "", body)

    found, wanted = step.lower(*workload.args), plain.lower(*workload.args)
    assert text(found) == text(wanted)


def test_a_loose_budget_is_kept_in_view(strict: None):
    workload = get("mlp-tiny")
    step = autotm.jit(workload.step, budget="1TiB", donate_argnums=0)
    assert_close(step(*workload.make(0)), jax.jit(workload.step)(*workload.make(0)))
    plan = step.plan(*workload.args)
    compiled = jax.jit(workload.step, donate_argnums=0).lower(*workload.args).compile()
    assert plan.realised is not None
    assert plan.realised.device_bytes == autotm.device_bytes(compiled)
    assert plan.device_bytes == autotm.device_bytes(compiled)
    assert plan.schedule == type(plan.schedule)()


def test_without_a_known_limit_the_plan_says_so():
    workload = get("mlp-tiny")
    plan = autotm.jit(workload.step).plan(*workload.args)
    assert plan.note == "the memory of cpu is not known: name a budget"
    assert plan.budget is None


# Budgets that cannot be met, and steps that cannot be planned.


def test_less_than_the_arguments():
    args = chain_arguments()
    step = autotm.jit(chain_step, budget="10KiB")
    text = (
        "The budget of 10.0 KiB is less than the arguments and results of the step "
        "alone, which take 56.0 KiB of device memory. Donate the state "
        "(donate_argnums) if it is not donated, let it move (move_state, host_budget) "
        "if it may not, or raise the budget."
    )
    with pytest.raises(InfeasibleBudget, match=re.escape(text)) as caught:
        step(*args)
    assert caught.value.least is None
    with pytest.raises(InfeasibleBudget, match=re.escape(text)):
        step.plan(*args)


def test_the_least_budget_is_named(strict: None):
    args = chain_arguments(batch=256)
    fixed = 256 * 32 * 4 + 2 * 6 * 32 * 32 * 4 + 4
    step = autotm.jit(chain_step, budget=fixed + 1000)
    with pytest.raises(InfeasibleBudget) as caught:
        step.plan(*args)
    text, least = str(caught.value), caught.value.least
    assert isinstance(least, int)
    assert re.match(
        r"No plan keeps the step within [\d.]+ KiB of device memory: the least budget "
        rf"that works is about [\d.]+ KiB \({least} bytes\)\.\n"
        r"The largest values alive at the tightest point, segment \d+ of \d+ "
        r"\([a-z_]+ at \S*steps\.py:\S+ \(.*\)\):\n",
        text,
    )
    assert "KiB  f32[256,32] from " in text
    assert "steps.py:" in text  # the line of the user's code
    assert text.endswith(
        "A smaller batch, a loss computed in chunks, or jax.checkpoint inside the "
        "largest layer lowers that point."
    )
    plan = autotm.jit(chain_step, budget=least).plan(*args)
    assert plan.status is Status.OPTIMAL
    with pytest.raises(InfeasibleBudget):
        autotm.jit(chain_step, budget=int(0.9 * least)).plan(*args)


@pytest.mark.parametrize("formulation", ["static", "synchronous", "asynchronous"])
def test_each_formulation_gives_the_same_values(strict: None, formulation: str):
    args = chain_arguments(batch=256)
    step = autotm.jit(chain_step, budget="min", formulation=formulation)
    plan = step.plan(*args)
    assert plan.formulation.value == formulation
    assert plan.schedule.recomputes == ()
    assert plan.schedule.copies > 0
    assert f"program         {formulation}" in str(plan)
    assert_close(step(*args), jax.jit(chain_step)(*args))


def test_a_formulation_that_is_none():
    with pytest.raises(ValueError) as caught:
        autotm.jit(chain_step, formulation="greedy")
    assert str(caught.value) == (
        "formulation is 'greedy'. The boolean programs are 'static', 'synchronous', "
        "'asynchronous', 'joint'."
    )


def test_a_host_budget_of_zero_moves_nothing(strict: None):
    args = chain_arguments()
    step = autotm.jit(chain_step, budget="min", host_budget=0)
    plan = step.plan(*args)
    assert plan.schedule.stores == ()
    assert plan.host_bytes == 0
    assert_close(step(*args), jax.jit(chain_step)(*args))


def test_an_error_in_the_step_is_the_users(strict: None):
    def step(x: Any) -> Any:
        raise TypeError("mine")

    planned = min_jit(step)
    for _ in range(2):
        with pytest.raises(TypeError, match="^mine"):
            planned(jnp.ones(3))


def test_wrong_arguments_are_told_as_jax_tells_them(strict: None):
    planned = min_jit(chain_step)
    args = chain_arguments()
    for _ in range(2):
        with pytest.raises(TypeError):
            planned(*args, 3)
        with pytest.raises(TypeError):
            planned(args[0], "weights")
        planned(*args)


def test_an_absent_target_is_not_called(strict: None):
    step = autotm.jit(chain_step, budget="min", target="h100-sxm")
    text = (
        "This step is compiled for h100-sxm, which is not here: use "
        "step.lower(...).compile() to inspect it, or target=None to run it on the "
        "default device."
    )
    for _ in range(2):
        with pytest.raises(TargetError, match=f"^{re.escape(text)}$"):
            step(*chain_arguments())


@needs_cuda_plugin
def test_the_least_budget_compiles(strict: None):
    args = chain_arguments(layers=4, width=256, batch=4096)
    with pytest.raises(InfeasibleBudget) as caught:
        autotm.jit(chain_step, budget="9MiB", target="h100-sxm").plan(*args)
    least = caught.value.least
    assert isinstance(least, int)
    step = autotm.jit(chain_step, budget=least, target="h100-sxm")
    compiled = step.lower(*args).compile()
    assert autotm.device_bytes(compiled) <= least


@needs_cuda_plugin
@pytest.mark.parametrize("budget", ["min", "1TiB"])
def test_a_verified_plan_is_what_an_executable_takes(budget: str, strict: None):
    args = chain_arguments(layers=4, width=256, batch=4096)
    step = autotm.jit(chain_step, budget=budget, target="h100-sxm")
    plan = step.verify(*args)
    assert plan.is_untouched == (budget == "1TiB")
    compiled = step.lower(*args).compile()
    assert plan.realised is not None
    assert plan.realised.device_bytes == autotm.device_bytes(compiled)
    assert plan.realised.host_bytes == autotm.host_bytes(compiled)
    assert step.plan(*args).realised == plan.realised
    # The other way around, too.
    again = autotm.jit(chain_step, budget=budget, target="h100-sxm")
    again.lower(*args).compile()
    assert again.verify(*args).realised == plan.realised


def test_a_step_that_is_here_is_verified_before_it_runs(quiet: None):
    args = chain_arguments()
    step = min_jit(chain_step)
    assert step.plan(*args).realised is None
    realised = step.verify(*args).realised
    assert realised is not None and realised.device_bytes > 0
    assert_close(step(*args), chain_step(*args))
    assert step.plan(*args).realised == realised
