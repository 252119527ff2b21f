"""Steps on a mesh: the same values and shardings as plain `jax.jit`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard

import autotm_jax as autotm
from benchmarks.workloads import gpt, llama

from .meshes import by_rows, mesh, spread


Step = Callable[..., Any]
P = PartitionSpec


def copied(tree: Any) -> Any:
    """Arrays that may be donated while the others live."""
    return jax.tree.map(lambda a: jax.device_put(np.array(a), a.sharding), tree)


def assert_like_plain(step: Step, state: Any, batch: Any, **options: Any) -> Any:
    """Three steps of each; returns the plan."""
    plain = jax.jit(step, donate_argnums=0, **options)
    ours = autotm.jit(step, budget="min", donate_argnums=0, **options)
    here, there = copied(state), copied(state)
    for _ in range(3):
        here, expected = plain(here, batch)
        there, found = ours(there, batch)
        np.testing.assert_allclose(found, expected, rtol=2e-5)
    pairs = zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True)
    for expected, found in pairs:
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
        kind = expected.sharding.memory_kind
        where = found.sharding.with_memory_kind(kind)
        assert where.is_equivalent_to(expected.sharding, expected.ndim)
    return ours.plan(there, batch)


MODELS = {
    "llama": (llama, dataclasses.replace(llama.TINY, batch=4)),
    "gpt": (gpt, dataclasses.replace(gpt.TINY, batch=4)),
    "gpt-scanned": (gpt, dataclasses.replace(gpt.TINY, batch=4, scanned=True)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_with_a_sharded_state(name: str):
    module, config = MODELS[name]
    workload = module.workload(config, name)
    state, batch = workload.make(0)
    over = mesh(data=2, model=2)
    state = spread(state, over, "data", "model")
    plan = assert_like_plain(workload.step, state, by_rows(batch, over, "data"))
    assert plan.copies > 0


def chain(count: int = 4, width: int = 64) -> tuple[Any, jax.Array]:
    keys = jax.random.split(jax.random.key(0), count + 1)
    weights = [jax.random.normal(k, (width, width)) / width**0.5 for k in keys[1:]]
    state = weights, jax.tree.map(jnp.zeros_like, weights)
    return state, jax.random.normal(keys[0], (32, width))


def train_step(loss: Callable[..., jax.Array]) -> Step:
    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        weights, momentum = state
        value, gradient = jax.value_and_grad(loss)(weights, batch)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
        weights = jax.tree.map(lambda w, m: w - 0.1 * m, weights, momentum)
        return (weights, momentum), value

    return step


def plain_loss(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    for weight in weights:
        x = jnp.tanh(x @ weight)
    return jnp.mean(x * x)


def test_shardings_given_to_jit():
    state, x = chain()
    over = mesh(data=2, model=2)
    rows = NamedSharding(over, P("data"))
    shardings = {
        "in_shardings": (rows, rows),
        "out_shardings": (rows, NamedSharding(over, P())),
    }
    state, x = by_rows((state, x), over, "data")
    plan = assert_like_plain(train_step(plain_loss), state, x, **shardings)
    assert not plan.is_untouched


def test_shardings_given_to_jit_for_arrays_that_are_nowhere_yet():
    state, x = chain()
    rows = NamedSharding(mesh(data=4), P("data"))
    step = train_step(plain_loss)
    plain = jax.jit(step, in_shardings=rows)
    ours = autotm.jit(step, budget="min", in_shardings=rows)
    np.testing.assert_allclose(ours(state, x)[1], plain(state, x)[1], rtol=2e-5)


def test_explicit_shardings():
    over = mesh(AxisType.Explicit, data=2, model=2)

    def loss(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        for weight in weights:
            x = jnp.tanh(x @ reshard(weight, P(None, None)))
        return jnp.mean(x * x)

    with jax.set_mesh(over):
        state, x = chain()
        state, x = by_rows(state, over, "model"), by_rows(x, over, "data")
        plan = assert_like_plain(train_step(loss), state, x)
    assert plan.copies > 0


def test_layers_in_a_shard_map():
    over = mesh(data=4)
    layer = jax.shard_map(
        lambda w, x: jnp.tanh(x @ w),
        mesh=over,
        in_specs=(P(), P("data")),
        out_specs=P("data"),
    )

    def loss(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        for weight in weights:
            x = layer(weight, x)
        return jnp.mean(x * x)

    state, x = chain()
    state, x = spread(state, over), by_rows(x, over, "data")
    assert assert_like_plain(train_step(loss), state, x).copies > 0


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_images_whose_channels_come_first(kind: AxisType):
    def loss(weights: Any, x: Any) -> jax.Array:
        for weight in weights:
            x = x + jnp.tanh(jax.lax.conv(x, weight, (1, 1), "SAME"))
        return jnp.mean(x * x)

    over = mesh(kind, data=2, model=2)
    images = jax.random.normal(jax.random.key(0), (8, 4, 16, 15))
    images = jax.device_put(images, NamedSharding(over, P("data")))
    weights = [jnp.ones((4, 4, 3, 3)) / 36] * 8
    state = jax.device_put((weights, weights), NamedSharding(over, P()))
    with jax.sharding.set_mesh(over):
        plan = assert_like_plain(train_step(loss), state, images)
    assert plan.copies > 0


def test_rows_that_do_not_divide():
    over = mesh(data=4)

    def loss(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        rows = NamedSharding(over, P("data"))
        return plain_loss(weights, jax.lax.with_sharding_constraint(x, rows))

    state, x = chain()
    assert_like_plain(train_step(loss), spread(state, over), spread(x[:30], over))


def test_keys_and_dropout():
    def loss(weights: list[jax.Array], batch: Any) -> jax.Array:
        x, key = batch
        for number, weight in enumerate(weights):
            x = jnp.tanh(x @ weight)
            own = jax.random.fold_in(key, number)
            x = jnp.where(jax.random.bernoulli(own, 0.9, x.shape), x, 0)
        return jnp.mean(x * x)

    state, x = chain()
    over = mesh(data=2, model=2)
    batch = by_rows(x, over, "data"), jax.random.key(1)
    assert_like_plain(train_step(loss), by_rows(state, over, "data"), batch)


def test_a_mesh_that_changes_between_calls_is_planned_anew():
    step = train_step(plain_loss)
    plain, ours = jax.jit(step), autotm.jit(step, budget="min")
    state, x = chain()
    for over in (mesh(data=2, model=2), mesh(data=4), None, mesh(data=2, model=2)):
        given = state, x
        if over is not None:
            given = by_rows(given, over, "data")
        np.testing.assert_allclose(ours(*given)[1], plain(*given)[1], rtol=2e-5)
        assert not ours.plan(*given).is_untouched


def adam_step(state: Any, batch: Any) -> Any:
    params, moments, count = state
    value, gradient = jax.value_and_grad(plain_loss)(params, batch)
    rate = 0.1 / (count + 1)
    moments = jax.tree.map(lambda m, g: 0.9 * m + g, moments, gradient)
    params = jax.tree.map(lambda w, m: w - rate * m, params, moments)
    return (params, moments, count + 1), value


@pytest.mark.parametrize("count", [jnp.zeros((), jnp.int32), np.zeros((), np.int32)])
def test_a_count_that_is_committed_to_no_device(count: Any):
    # As optax makes it, whatever the mesh.
    over = mesh(data=4)
    (weights, moments), x = chain()
    state = *by_rows((weights, moments), over, "data"), count
    step = autotm.jit(adam_step, budget="min", donate_argnums=0)
    expected = jax.jit(adam_step)(state, by_rows(x, over, "data"))
    found = step(copied_to(state), by_rows(x, over, "data"))
    np.testing.assert_allclose(found[1], expected[1], rtol=2e-5)
    plan = step.plan(found[0], by_rows(x, over, "data"))
    assert plan.on_host and plan.realised is not None
    assert found[0][2].sharding.is_fully_replicated
    # The state that came back needs no other executable.
    step(found[0], by_rows(x, over, "data"))
    assert step.plan(found[0], by_rows(x, over, "data")) is plan


def copied_to(tree: Any) -> Any:
    """As `copied`; what is committed nowhere stays so."""

    def copy(leaf: Any) -> Any:
        is_put = isinstance(leaf, jax.Array) and leaf.committed
        return jax.device_put(np.array(leaf), leaf.sharding) if is_put else leaf

    return jax.tree.map(copy, tree)


@pytest.mark.parametrize("how", ["arrays", "nowhere", "specs", "results"])
def test_a_state_moves_whose_shardings_are_given(how: str):
    over = mesh(data=4)
    rows, everywhere = NamedSharding(over, P("data")), NamedSharding(over, P())
    options = {
        "in_shardings": ((rows, rows, everywhere), rows),
        "out_shardings": ((rows, rows, everywhere), everywhere),
    }
    if how == "results":
        del options["in_shardings"]
    (weights, moments), x = chain()
    state = weights, moments, jnp.zeros((), jnp.int32)
    if how in ("arrays", "results"):
        state = *by_rows((weights, moments), over, "data"), state[2]
    elif how == "nowhere":
        state = jax.tree.map(np.array, state)
    current: Any = contextlib.nullcontext()
    if how == "specs":
        is_place = lambda x: isinstance(x, NamedSharding)  # noqa: E731
        options = jax.tree.map(lambda s: s.spec, options, is_leaf=is_place)
        current = jax.set_mesh(over)
    with current:
        plain = jax.jit(adam_step, **options)
        ours = autotm.jit(adam_step, budget="min", donate_argnums=0, **options)
        here, there = state, copied_to(state)
        for number in range(5):
            if number == 3:  # a state that has come from elsewhere
                there = jax.tree.map(np.array, there)
            if number == 4:
                there = autotm.on_device(there)
            here, expected = plain(here, np.array(x))
            there, found = ours(there, np.array(x))
            np.testing.assert_allclose(found, expected, rtol=2e-5)
        plan = ours.plan(there, np.array(x))
        assert plan.on_host and not plan.note
        assert plan.realised is not None
    pairs = zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True)
    for number, (expected, found) in enumerate(pairs):
        hosted = number in plan.on_host
        assert (found.sharding.memory_kind == "pinned_host") == hosted
        same = found.sharding.with_memory_kind(expected.sharding.memory_kind)
        assert same.is_equivalent_to(expected.sharding, expected.ndim)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def test_a_state_that_is_elsewhere_than_its_shardings_say():
    over = mesh(data=4)
    rows = NamedSharding(over, P("data"))
    (weights, moments), x = chain()
    options = {"in_shardings": rows, "donate_argnums": 0}
    step = autotm.jit(train_step(plain_loss), budget="min", **options)
    step(jax.tree.map(np.array, (weights, moments)), np.array(x))
    wrong = spread((weights, moments), over)
    with pytest.raises(ValueError, match="and in_shardings says"):
        step(wrong, np.array(x))


def test_a_step_that_fits_beside_one_whose_state_moves(own_cache: Any):
    # Both have shardings: those of the one are up to JAX, those of the other are not.
    rows = NamedSharding(mesh(data=4), P("data"))
    (weights, moments), x = chain(8, 128)
    step = autotm.jit(
        train_step(plain_loss),
        budget="350KiB",
        donate_argnums=0,
        in_shardings=rows,
        solver=autotm.SolverOptions(time_limit=2),
    )
    small = jax.tree.map(lambda a: np.array(a[:4, :4]), (weights, moments))
    step.plan(small, np.array(x[:, :4]))
    large = jax.tree.map(np.array, (weights, moments))
    for _ in range(2):
        large, _ = step(large, np.array(x))
        small, _ = step(small, np.array(x[:, :4]))
    assert step.plan(large, np.array(x)).on_host
    assert step.plan(small, np.array(x[:, :4])).is_untouched
