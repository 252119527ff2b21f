"""`autotm.jit` is `jax.jit`: what it decorates, what goes in and what comes out."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autotm_jax as autotm
from autotm_jax.solve import Schedule, replay

from .compiling import needs_cuda_plugin
from .steps import TINY, assert_close, chain, chain_arguments, chain_step, get


min_jit = functools.partial(autotm.jit, budget="min")


def changes_something(step: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether the plan of a step adds anything to it."""
    schedule = step.plan(*args, **kwargs).schedule
    return bool(schedule.stores or schedule.fetches or schedule.recomputes)


# The decorator.


def test_what_plain_jit_needs_is_kept_by_what_is_donated(own_cache: Path):
    # The same jaxpr and options, but other arguments donated.
    x = jnp.ones((256, 256))

    def step(a: Any, b: Any) -> Any:
        return jax.tree.map(jnp.sin, (a, b))

    found = []
    for args in (((x, x), (x,)), ((x,), (x, x))):
        plan = autotm.jit(step, budget=1.0, donate_argnums=0).plan(*args)
        plain = jax.jit(step, donate_argnums=0).lower(*args).compile()
        assert plan.device_bytes == autotm.device_bytes(plain)
        found.append(plan.device_bytes)
    assert found[0] != found[1]


def test_without_arguments():
    @autotm.jit
    def double(x: Any) -> Any:
        """Doubles."""
        return x * 2

    assert double(jnp.arange(3)).tolist() == [0, 2, 4]
    assert double.__name__ == "double"
    assert double.__doc__ == "Doubles."
    assert double.__wrapped__(3) == 6


def test_with_arguments():
    @autotm.jit(budget="6GiB")
    def double(x: Any) -> Any:
        return x * 2

    assert double(jnp.arange(3)).tolist() == [0, 2, 4]
    assert isinstance(double, autotm.Step)
    assert repr(double).startswith("autotm_jax.jit(<function")
    assert repr(double).endswith("budget=6442450944)")


def test_called_on_a_function(strict: None):
    step = autotm.jit(chain_step, budget="min")
    args = chain_arguments()
    assert changes_something(step, *args)
    assert_close(step(*args), jax.jit(chain_step)(*args))


@pytest.mark.parametrize("thing", [3, "f", [len]])
def test_not_a_function(thing: Any):
    text = f"autotm.jit expects a function, got {thing!r}, a {type(thing).__name__}."
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        autotm.jit(thing)


def test_a_method(strict: None):
    class Model:
        def __init__(self, scale: float):
            self.scale = scale

        @autotm.jit(budget="min", static_argnums=0)
        def step(self, x: Any, weights: Any) -> Any:
            return jax.value_and_grad(chain, argnums=1)(x * self.scale, weights)

    args = chain_arguments()
    for model in (Model(1.0), Model(0.5)):
        wanted = jax.jit(chain_step)(args[0] * model.scale, args[1])
        assert_close(model.step(*args), wanted)
    assert isinstance(Model.step, autotm.Step)


def test_partial_and_callable_objects(strict: None):
    x, weights = chain_arguments()
    step = autotm.jit(functools.partial(chain_step, x), budget="min")
    assert_close(step(weights), chain_step(x, weights))


# What goes in and what comes out.


def test_pytrees_and_keywords(strict: None):
    def step(state: Any, *, batch: Any, rate: Any = 0.5) -> Any:
        loss, grads = chain_step(batch["x"], state["weights"])
        new = [w - rate * g for w, g in zip(state["weights"], grads, strict=True)]
        return {"weights": new, "none": None}, (loss, {"rate": rate})

    x, weights = chain_arguments()
    planned, plain = min_jit(step), jax.jit(step)
    state, batch = {"weights": weights, "none": None}, {"x": x}
    assert_close(planned(state, batch=batch), plain(state, batch=batch))
    found = planned(state, batch=batch, rate=0.1)
    assert_close(found, plain(state, batch=batch, rate=0.1))
    assert changes_something(planned, state, batch=batch, rate=0.1)


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"static_argnums": 0}, lambda f, n, a: f(n, *a)),
        ({"static_argnums": (0,)}, lambda f, n, a: f(n, *a)),
        ({"static_argnames": "layers"}, lambda f, n, a: f(n, *a)),
        (
            {"static_argnames": ("layers",)},
            lambda f, n, a: f(layers=n, x=a[0], ws=a[1]),
        ),
    ],
)
def test_static_arguments(options: dict[str, Any], call: Any, strict: None):
    def step(layers: int, x: Any, ws: Any) -> Any:
        return chain_step(x, ws[:layers])

    args = chain_arguments()
    planned, plain = min_jit(step, **options), jax.jit(step, **options)
    for layers in (5, 6, 5):
        assert_close(call(planned, layers, args), call(plain, layers, args))


def test_static_arguments_choose_a_branch(strict: None):
    def step(x: Any, weights: Any, mode: str) -> Any:
        loss, grads = chain_step(x, weights)
        return (loss, grads) if mode == "train" else loss

    args = chain_arguments()
    planned = min_jit(step, static_argnames="mode")
    assert_close(planned(*args, mode="train"), chain_step(*args))
    assert_close(planned(*args, mode="eval"), chain_step(*args)[0])


@pytest.mark.parametrize("seed", [0, 1])
def test_closures_over_arrays(seed: int, strict: None):
    x, weights = chain_arguments()
    table = jax.random.normal(jax.random.key(seed), x.shape)
    constants = np.arange(x.size, dtype=np.float32).reshape(x.shape)

    def step(weights: Any) -> Any:
        return chain_step(table + constants * 1e-3, weights)

    planned = min_jit(step)
    assert changes_something(planned, weights)
    assert_close(planned(weights), jax.jit(step)(weights))


def test_donation(strict: None):
    def step(x: Any, weights: Any) -> Any:
        loss, grads = chain_step(x, weights)
        return [w - 0.1 * g for w, g in zip(weights, grads, strict=True)], loss

    x, weights = chain_arguments()
    wanted = jax.jit(step)(x, weights)
    kept = [w + 0 for w in weights]
    planned = min_jit(step, donate_argnums=1)
    with pytest.warns(autotm.AutoTMWarning, match="have been moved"):
        found = planned(x, weights)
    assert_close(found, wanted)
    assert all(w.is_deleted() for w in weights)
    assert not x.is_deleted()
    assert_close(planned(x, kept), wanted)  # that is said once
    assert all(w.is_deleted() for w in kept)


def test_donation_by_name(strict: None):
    x, weights = chain_arguments()
    planned = min_jit(
        lambda x, weights: [w * 2 for w in chain_step(x, weights)[1]],
        donate_argnames="weights",
    )
    with pytest.warns(autotm.AutoTMWarning, match="have been moved"):
        planned(x, weights=weights)
    assert all(w.is_deleted() for w in weights)


def test_results_of_every_kind(strict: None):
    def step(x: Any, weights: Any, key: Any) -> Any:
        loss, grads = chain_step(x, weights)
        return loss, grads, x, x, key, 1, 2.5, True, jnp.zeros((0, 3)), None, grads[0]

    args = (*chain_arguments(), jax.random.key(3))
    found, wanted = min_jit(step)(*args), jax.jit(step)(*args)
    assert_close(found, wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert getattr(a, "weak_type", None) == getattr(b, "weak_type", None)


def test_python_numbers_and_numpy_arrays_go_in(strict: None):
    def step(x: Any, weights: Any, scale: Any) -> Any:
        return chain_step(x * scale, weights)

    x, weights = chain_arguments()
    planned, plain = min_jit(step), jax.jit(step)
    for scale in (2, 0.5, np.float32(0.5), jnp.asarray(0.25)):
        args = (np.asarray(x), weights, scale)
        assert_close(planned(*args), plain(*args))


def test_integer_gradients(strict: None):
    def loss(weights: Any, count: Any, x: Any) -> Any:
        return chain(x, weights) * count

    step = jax.grad(loss, argnums=(0, 1), allow_int=True)
    x, weights = chain_arguments()
    found = min_jit(step)(weights, 3, x)
    assert found[1].dtype == jax.dtypes.float0
    assert_close(found[0], jax.jit(step)(weights, 3, x)[0])


# Under other transformations.


def test_under_other_transformations_it_is_jax_jit(strict: None):
    step, plain = min_jit(chain), jax.jit(chain)
    x, weights = chain_arguments()
    assert_close(
        jax.grad(step, argnums=1)(x, weights), jax.grad(plain, argnums=1)(x, weights)
    )
    many = jnp.stack([x, x * 2])
    assert_close(
        jax.vmap(step, (0, None))(many, weights),
        jax.vmap(plain, (0, None))(many, weights),
    )
    outer = jax.jit(lambda x, w: step(x, w) * 2)
    assert_close(outer(x, weights), plain(x, weights) * 2)
    assert "optimization_barrier" not in str(jax.make_jaxpr(step)(x, weights))
    assert jax.eval_shape(step, x, weights).shape == ()


def test_one_step_inside_another(strict: None):
    inner = min_jit(chain)
    x, weights = chain_arguments()
    outer = min_jit(jax.value_and_grad(lambda w, x: inner(x, w)))
    loss, grads = outer(weights, x)
    assert_close((loss, grads), chain_step(x, weights))


# Values.


def test_a_fraction_of_what_plain_jit_needs(quiet: None):
    workload = get("gpt-tiny")
    plain = jax.jit(workload.step, donate_argnums=0).lower(*workload.args).compile()
    step = autotm.jit(workload.step, budget=0.6, donate_argnums=0)
    plan = step.plan(*workload.args)
    assert plan.budget == int(0.6 * autotm.device_bytes(plain))
    assert plan.device_bytes is not None
    assert plan.device_bytes <= plan.budget


@pytest.mark.parametrize("name", TINY)
def test_training_gives_the_same_values(name: str, quiet: None):
    workload = get(name)
    options: dict[str, Any] = {"donate_argnums": workload.donate_argnums}
    least = autotm.jit(workload.step, budget="min", **options)
    low = least.plan(*workload.args)
    assert low.schedule.recomputes or low.schedule.stores
    assert low.problem is not None and low.replay is not None
    assert low.device_bytes is not None
    saved = replay(low.problem, Schedule()).device_peak - low.replay.device_peak
    middle = autotm.jit(workload.step, budget=low.device_bytes + saved // 2, **options)
    loose = autotm.jit(workload.step, budget="1TiB", **options)
    plain = jax.jit(workload.step, **options)
    losses, states = [], []
    for step in (plain, least, middle, loose):
        state, batch = workload.make(0)
        history = []
        for _ in range(5):
            state, loss = step(state, batch)
            history.append(loss)
        losses.append(history)
        states.append(state)
    assert losses[0][-1] < losses[0][0]
    for history, state in zip(losses[1:], states[1:], strict=True):
        assert_close(history, losses[0], 1e-4)
        assert_close(state, states[0], 1e-4)
    assert loose.plan(*workload.args).is_untouched
    assert not middle.plan(*workload.args).is_untouched


def test_randomness_is_the_same(strict: None):
    def loss(weights: Any, x: Any, key: Any) -> Any:
        for weight, k in zip(weights, jax.random.split(key, len(weights)), strict=True):
            x = jnp.tanh(x @ weight)
            x = jnp.where(jax.random.bernoulli(k, 0.7, x.shape), x / 0.7, 0)
        return jnp.mean(x**2)

    step = jax.value_and_grad(loss)
    x, weights = chain_arguments()
    planned, plain = min_jit(step), jax.jit(step)
    for key in (jax.random.key(1), jax.random.PRNGKey(2)):
        assert changes_something(planned, weights, x, key)
        assert_close(planned(weights, x, key), plain(weights, x, key))


def test_random_state_is_carried_on(strict: None):
    def step(key: Any, x: Any, weights: Any) -> Any:
        key, now = jax.random.split(key)
        noise = jax.random.normal(now, x.shape)
        return key, chain_step(x + noise, weights)

    args = chain_arguments()
    planned, plain = min_jit(step), jax.jit(step)
    key = same = jax.random.key(5)
    for _ in range(3):
        key, out = planned(key, *args)
        same, wanted = plain(same, *args)
        assert_close(out, wanted)
    assert bool(jnp.all(jax.random.key_data(key) == jax.random.key_data(same)))


# Small steps.


@pytest.mark.parametrize(
    ("step", "args"),
    [
        (lambda x: x + 1, (np.ones(8, np.float32),)),
        (lambda x: x, (np.ones(8, np.float32),)),
        (lambda x: (x, x.sum()), (np.ones(8, np.float32),)),
        (lambda: jnp.ones(3), ()),
        (lambda: jnp.ones((8, 8)) @ jnp.ones((8, 8)), ()),
        (lambda x: jnp.sin(x) @ x, (np.ones((8, 8), np.float32),)),
    ],
)
@pytest.mark.parametrize("budget", ["min", "1TiB", None])
def test_steps_with_nothing_to_decide(step: Any, args: Any, budget: Any, strict: None):
    planned = autotm.jit(step, budget=budget)
    assert_close(planned(*args), jax.jit(step)(*args))


def test_constants_chosen_by_a_static_argument(strict: None):
    # Both signatures print the same jaxpr: only the arrays closed over differ.
    x, weights = chain_arguments()
    tables = [x, x * 2]

    def step(weights: Any, which: int) -> Any:
        return chain_step(tables[which], weights)

    planned = min_jit(step, static_argnums=1)
    for which in (0, 1):
        assert_close(
            planned(weights, which), jax.jit(chain_step)(tables[which], weights)
        )


@needs_cuda_plugin
def test_static_arguments_for_a_target(strict: None):
    def step(layers: int, x: Any, ws: Any, mode: str = "train") -> Any:
        assert isinstance(layers, int)
        assert mode in ("train", "eval")
        return chain_step(x, ws[:layers]) if mode == "train" else chain(x, ws)

    args = chain_arguments()
    planned = min_jit(step, target="h100-sxm", static_argnums=0, static_argnames="mode")
    plan = planned.plan(6, *args, mode="train")
    assert plan.program is not None
    assert len(plan.program.results) == 7
    assert len(planned.plan(6, *args, mode="eval").program.results) == 1


def test_without_jit_the_function_itself_runs(strict: None):
    args = chain_arguments()
    with jax.disable_jit():
        assert_close(min_jit(chain_step)(*args), chain_step(*args))


def test_nothing_moves_without_host_memory():
    here = autotm.target()
    bare = dataclasses.replace(here.machine, has_host_memory=False)
    step = autotm.jit(
        chain_step, budget="min", target=dataclasses.replace(here, machine=bare)
    )
    plan = step.plan(*chain_arguments())
    assert not plan.schedule.stores and not plan.schedule.fetches
    assert "no pinned_host memory" in str(plan)


def test_variants_are_picked_where_memory_is_tight(strict: None):
    def by_rows(x: Any, w: Any) -> Any:
        once = jax.checkpoint(lambda row: jax.nn.logsumexp(row @ w))
        return jax.lax.map(once, x)

    norms = autotm.variants(
        lambda x, w: jax.nn.logsumexp(x @ w, -1), by_rows, names=("at once", "by rows")
    )

    def step(x: Any, w: Any) -> Any:
        return jax.value_and_grad(lambda w: norms(jnp.tanh(x @ x.T) @ x, w).mean())(w)

    x = jax.random.normal(jax.random.key(0), (256, 8))
    w = jax.random.normal(jax.random.key(1), (8, 4096))
    wanted = jax.jit(step)(x, w)
    planned = min_jit(step)
    assert_close(planned(x, w), wanted)
    plan = planned.plan(x, w)
    assert plan.program is not None
    titles = [
        plan.program.segments[p.segment].body.branches[p.variant - 1].title
        for p in plan.schedule.picks
    ]
    assert titles == ["<lambda>, by rows", "gradient of <lambda>, by rows"]
    assert "1 x gradient of <lambda>, by rows" in str(plan)
    default = autotm.device_bytes(jax.jit(step).lower(x, w).compile())
    assert plan.realised is not None
    assert plan.realised.device_bytes < default / 2


def test_a_plan_that_was_only_made_is_checked_before_it_runs(quiet: None):
    args = chain_arguments()
    step = autotm.jit(chain_step, budget="100KiB")
    step(*chain_arguments(batch=32))  # so that there is a planned jit
    assert step.plan(*args).realised is None
    jax.tree.map(np.testing.assert_allclose, step(*args), jax.jit(chain_step)(*args))
    assert step.plan(*args).realised is not None
