"""The inside of a `shard_map` is planned like any other part of a step."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import autotm_jax as autotm
from autotm_jax import Status
from autotm_jax.compile import collectives
from autotm_jax.trace import Program
from autotm_jax.trace.flatten import flatten
from benchmarks.workloads import gpt

from .meshes import by_rows, mesh, spread
from .programs import program_of, random_step, run
from .steps import assert_close


P = PartitionSpec
Step = Callable[..., Any]
WIDTH, ROWS = 32, 16


def arguments(over: Mesh, stacked: bool) -> tuple[Any, Any]:
    """Four weights on every device, and rows divided by the first axis of a mesh."""
    keys = jax.random.split(jax.random.key(0), 5)
    weights = [jax.random.normal(k, (WIDTH, WIDTH)) / WIDTH**0.5 for k in keys[1:]]
    held = jnp.stack(weights) if stacked else weights
    rows = jax.random.normal(keys[0], (ROWS, WIDTH))
    held = jax.device_put(held, NamedSharding(over, P()))
    return held, jax.device_put(rows, NamedSharding(over, P(over.axis_names[0])))


def layers(weights: Any, x: Any) -> tuple[Any, Any]:
    """Layers one by one, or as a scan, and a number of each of them."""

    def layer(x: Any, w: Any) -> tuple[Any, Any]:
        return jnp.tanh(x @ w), jnp.sum(x)

    if not isinstance(weights, list):
        return jax.lax.scan(layer, x, weights)
    seen = []
    for w in weights:
        x, number = layer(x, w)
        seen.append(number)
    return x, jnp.stack(seen)


def train_step(over: Mesh, check: bool) -> Step:
    """Data parallelism by hand: all of the step is one `shard_map`."""
    axes = over.axis_names

    def step(weights: Any, x: Any) -> Any:
        def loss(weights: Any) -> Any:
            y, seen = layers(weights, x)
            mine = jnp.mean(y * y) + 1e-3 * jnp.sum(seen * jnp.arange(4.0))
            return jax.lax.pmean(mine, axes[:1]) if check else mine / over.size

        value, gradient = jax.value_and_grad(loss)(weights)
        if not check:
            value, gradient = jax.lax.psum((value, gradient), axes)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradient), value

    specs = {"in_specs": (P(), P(axes[0])), "out_specs": (P(), P())}
    return jax.shard_map(step, mesh=over, check_vma=check, **specs)


def assert_planned(step: Step, *args: Any) -> autotm.Plan:
    """Three steps as `jax.jit` makes them; returns the plan, which does something."""
    plain = jax.jit(step)
    ours = autotm.jit(step, budget="min", donate_argnums=0)
    state, *rest = args
    here, there = state, jax.tree.map(jnp.copy, state)
    for _ in range(3):
        here, expected = plain(here, *rest)
        there, found = ours(there, *rest)
        assert_close(found, expected)
    assert_close(autotm.on_device(there), here)
    for expected, found in zip(*map(jax.tree.leaves, (here, there)), strict=True):
        where = found.sharding.with_memory_kind("device")
        assert where.is_equivalent_to(expected.sharding, expected.ndim)
    plan = ours.plan(there, *rest)
    assert plan.program is not None
    assert plan.schedule.copies or plan.schedule.recomputes
    return plan


@pytest.mark.parametrize("axes", [{"data": 4}, {"data": 2, "other": 2}])
@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("check", [False, True])
def test_a_step_that_is_one_shard_map(check: bool, stacked: bool, axes: Any):
    over = mesh(**axes)
    plan = assert_planned(train_step(over, check), *arguments(over, stacked))
    assert plan.program is not None
    names = {e.eqn.primitive.name for e in plan.program.equations}
    assert "dot_general" in names
    assert "shard_map" not in names
    assert len(plan.program.loops) == (2 if stacked else 0)


def test_sizes_are_those_of_one_device():
    over = mesh(data=4)
    weights, x = arguments(over, stacked=False)
    program = program_of(train_step(over, True), weights, x)
    made = [v for v in program.values if v.producer is not None]
    rows = [v for v in made if v.aval.shape == (ROWS // 4, 4 * WIDTH)]
    assert rows
    assert {v.nbytes for v in rows} == {4 * ROWS // 4 * WIDTH}


def test_explicit_sharding():
    over = mesh(AxisType.Explicit, data=4)
    with jax.set_mesh(over):
        assert_planned(train_step(over, True), *arguments(over, stacked=True))


def test_the_mesh_that_is_set():
    over = mesh(data=4)
    weights, x = arguments(over, stacked=False)

    def step(weights: Any, x: Any) -> Any:
        specs = {"in_specs": (P(), P("data")), "out_specs": P()}

        def loss(weights: Any, x: Any) -> Any:
            return jax.lax.pmean(jnp.mean(layers(weights, x)[0] ** 2), "data")

        mapped = jax.shard_map(loss, **specs)
        value, gradient = jax.value_and_grad(mapped)(weights, x)
        return jax.tree.map(lambda w, g: w - g, weights, gradient), value

    with jax.set_mesh(over):
        plan = assert_planned(step, weights, x)
    assert plan.program is not None
    assert any(e.manual is not None for e in plan.program.equations)


def test_state_that_is_divided_by_hand():
    over = mesh(data=4)

    def step(weights: Any, x: Any) -> Any:
        def loss(weights: Any) -> Any:
            whole = [jax.lax.all_gather(w, "data", tiled=True) for w in weights]
            return jax.lax.pmean(jnp.mean(layers(whole, x)[0] ** 2), "data")

        value, gradient = jax.value_and_grad(loss)(weights)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradient), value

    specs = {"in_specs": (P("data"), P("data")), "out_specs": (P("data"), P())}
    weights, x = arguments(over, stacked=False)
    weights = by_rows(weights, over, "data")
    plan = assert_planned(jax.shard_map(step, mesh=over, **specs), weights, x)
    assert plan.copies > 0


def test_rows_of_numbers_in_a_loop():
    # What is scanned and stacked has one number of each device in each iteration.
    check = False

    def step(rows: Any, x: Any) -> Any:
        def body(carry: Any, number: Any) -> Any:
            grown = carry * number + jnp.sin(x).sum()
            return grown, (number * 2.0, grown, 1.0)

        first = rows[0] * 0.0 if check else 0.0
        last, (doubled, each, ones) = jax.lax.scan(body, first, rows)
        last = jnp.broadcast_to(last, (1,))
        return doubled, (each + ones, last, jnp.tanh(x @ x.T))

    over = mesh(data=4)
    specs = {"in_specs": (P("data"), P("data")), "out_specs": P("data")}
    for check in (False, True):
        mapped = jax.shard_map(step, mesh=over, check_vma=check, **specs)
        rows = by_rows(jnp.arange(12.0), over, "data")
        x = by_rows(jnp.ones((ROWS, WIDTH)), over, "data")
        for loops in (False, True):
            program = program_of(mapped, rows, x, loops=loops)
            expected = jax.tree.leaves(jax.jit(mapped)(rows, x))
            if not loops:
                assert_close(run(program, rows, x), expected)
        ours = autotm.jit(mapped, budget="min")
        assert_close(ours(rows, x), jax.jit(mapped)(rows, x))


def test_what_a_region_returns_or_takes_as_it_is():
    def step(x: Any, y: Any) -> Any:
        return x, (y, y.sum()[None], 1.0, jnp.sin(y) @ y.T)

    over = mesh(data=4)
    out = (P("data"), (P("data"), P("data"), P(), P("data")))
    specs = {"in_specs": (P("data"), P("data")), "out_specs": out}
    mapped = jax.shard_map(step, mesh=over, check_vma=False, **specs)
    x = by_rows(jnp.arange(64.0).reshape(16, 4), over, "data")
    program = program_of(mapped, x, x + 1)
    found = list(map(jnp.asarray, run(program, x, x + 1)))
    assert_close(found, jax.tree.leaves(mapped(x, x + 1)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_random_steps_in_a_region(seed: int, check: bool):
    step = random_step(seed)
    over = mesh(rows=4)

    def mapped(x: Any, y: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[None], step(x, y))

    specs = {"in_specs": P("rows"), "out_specs": P("rows")}
    whole = jax.shard_map(mapped, mesh=over, check_vma=check, **specs)
    x, y = jax.random.normal(jax.random.key(seed), (2, 24, 6)) / 2
    x, y = by_rows((x, y), over, "rows")
    program = program_of(whole, x, y)
    assert all(e.eqn.primitive.name != "shard_map" for e in program.equations)
    expected = jax.tree.leaves(jax.jit(whole)(x, y))
    assert_close(run(program, x, y), expected)


def test_a_constant_that_a_region_takes_divided_and_whole():
    over = mesh(data=4)
    table = jnp.arange(32.0).reshape(8, 4)
    inner = jax.jit(lambda part: part * table.sum() + table[:2])

    def step(x: Any) -> Any:
        specs = {"in_specs": (P("data"), P("data")), "out_specs": P("data")}
        add = jax.shard_map(lambda part, x: inner(part) + x, mesh=over, **specs)
        return add(table, x)

    x = jnp.ones((8, 4))
    program = program_of(step, x)
    assert len(program.constants) == 2
    assert_close(run(program, x), [jax.jit(step)(x)])


def test_layers_in_regions_are_planned_from_the_inside():
    over = mesh(data=2, model=2)
    specs = {"in_specs": (P("data"), P(None, "model")), "out_specs": P("data", "model")}
    layer = jax.shard_map(lambda x, w: jnp.tanh(x @ w), mesh=over, **specs)

    def step(weights: Any, x: Any) -> Any:
        def loss(weights: Any) -> Any:
            y = x
            for w in weights:
                y = layer(y, w)
            return jnp.mean(y * y)

        value, gradient = jax.value_and_grad(loss)(weights)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradient), value

    plan = assert_planned(step, *arguments(over, stacked=False))
    assert plan.program is not None
    manual = [e for e in plan.program.equations if e.manual is not None]
    assert {"dot_general", "tanh"} <= {e.eqn.primitive.name for e in manual}


def whole(step: Step, *args: Any) -> bool:
    closed = jax.jit(step).trace(*args).jaxpr
    return any(e.eqn.primitive.name == "shard_map" for e in flatten(closed).equations)


def test_what_stays_whole():
    over = mesh(data=2, model=2)
    x = jnp.ones((8, 8))
    by = {"mesh": over, "in_specs": P("data"), "out_specs": P("data")}
    assert not whole(jax.shard_map(jnp.sin, **by), x)
    # The other axis is XLA's to divide.
    assert whole(jax.shard_map(jnp.sin, axis_names={"data"}, **by), x)

    specs = {"in_specs": (P("data"), P()), "out_specs": P("data")}
    pair = jax.shard_map(lambda a, b: a * b.sum(), mesh=over, **specs)
    assert not whole(pair, x, x + 1)

    def twice(x: Any) -> Any:
        return pair(x, x)

    assert whole(twice, x)
    assert whole(lambda x: jax.jit(lambda a, b: pair(a, b))(x, x), x)
    on_host = jax.shard_map(
        lambda x: jax.device_put(jnp.sin(x), jax.memory.Space.Host), **by
    )
    assert whole(on_host, x)


def test_one_number_of_each_row_is_selected():
    # As outside of a region: the gradient of a cross-entropy writes no zeros.
    over = mesh(data=4)

    def step(x: Any, labels: Any) -> Any:
        def loss(x: Any) -> Any:
            picked = jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1)
            return -jax.lax.pmean(picked.mean(), "data")

        return jax.grad(loss)(x)

    specs = {"in_specs": P("data"), "out_specs": P("data")}
    mapped = jax.shard_map(step, mesh=over, **specs)
    x = by_rows(jax.random.normal(jax.random.key(0), (16, 8)), over, "data")
    labels = by_rows(jnp.arange(16) % 8, over, "data")
    program = program_of(mapped, x, labels)
    names = {e.eqn.primitive.name for e in program.equations}
    assert not names & {"scatter", "scatter-add"}
    assert_close(run(program, x, labels), [jax.jit(mapped)(x, labels)])


def test_collectives_are_priced_and_may_be_repeated():
    over = mesh(data=4)

    def step(x: Any) -> Any:
        whole = jax.lax.all_gather(x, "data", tiled=True)
        return jax.lax.psum(x, "data"), jax.lax.psum_scatter(
            whole @ whole.T, "data", tiled=True
        )

    specs = {"in_specs": P("data"), "out_specs": (P(), P("data"))}
    mapped = jax.shard_map(step, mesh=over, **specs)
    x = by_rows(jnp.ones((16, 16)), over, "data")
    found = {
        e.eqn.primitive.name: _sent(program, e.index)
        for program in [program_of(mapped, x)]
        for e in program.equations
    }
    part = 4 * 4 * 16
    gathered = {n: b for n, b in found.items() if n.startswith("all_gather")}
    assert list(gathered.values()) == [3 * part]
    assert [b for n, b in found.items() if n.startswith("psum")] == [2 * part * 3 / 4]
    assert found["reduce_scatter"] == 3 * part
    assert found["dot_general"] == 0


def _sent(program: Program, index: int) -> float:
    from autotm_jax.profile.exchange import exchanged_bytes

    return exchanged_bytes(program, program.equations[index])


def test_arguments_that_are_not_on_the_mesh_yet():
    over = mesh(data=4)
    weights, x = jax.tree.map(np.asarray, arguments(over, stacked=False))
    step = autotm.jit(train_step(over, True), budget="min", donate_argnums=0)
    text = (
        "it has a jax.shard_map over several devices, and its arguments are not on "
        "them yet. Put its state there before the first call: "
        r"jax.device_put\(state, NamedSharding\(mesh, spec\)\)"
    )
    with pytest.warns(autotm.AutoTMWarning, match=text):
        state, value = step(weights, x)
    assert step.plan(weights, x).status is Status.UNSUPPORTED
    # Its results are: from the second call on it is planned.
    step(state, x)
    assert step.plan(*arguments(over, stacked=False)).status is not Status.UNSUPPORTED


def test_a_plan_of_it_is_saved_and_told(tmp_path: Path):
    over = mesh(data=4)
    args = arguments(over, stacked=True)
    plan = autotm.jit(train_step(over, True), budget="min", donate_argnums=0).plan(
        *args
    )
    plan.save(tmp_path / "plan.json")
    saved = autotm.Plan.load(tmp_path / "plan.json")
    again = autotm.jit(train_step(over, True), plan=saved, donate_argnums=0)
    assert again.plan(*args).schedule == plan.schedule
    # The rows of one device, as in the user's code.
    assert f"f32[{ROWS // 4},{WIDTH}]" in plan.explain()


def test_a_state_that_nobody_has_put_anywhere():
    over = mesh(data=4)
    weights, x = arguments(over, stacked=False)
    fresh = [jnp.asarray(np.asarray(w)) for w in weights]
    plan = assert_planned(train_step(over, True), fresh, x)
    assert plan.status is not Status.UNSUPPORTED


@pytest.mark.parametrize("scanned", [False, True])
def test_the_memory_of_each_gpu(scanned: bool):
    gpus = autotm.target("h100-sxm", topology="1x1x8")
    config = dataclasses.replace(gpt.SMALL, batch=4, length=256, scanned=scanned)
    workload = gpt.workload(config)
    over = Mesh(np.array(gpus.devices), ("data",))
    state, batch = workload.args

    def step(state: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            return jax.lax.pmean(gpt.loss(params, batch, config), "data")

        value, gradient = jax.value_and_grad(loss)(state[0])
        return config.optimizer.update(state, gradient), value

    specs = {"in_specs": (P(), P("data")), "out_specs": (P(), P())}
    mapped = jax.shard_map(step, mesh=over, **specs)
    wide = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((a.shape[0] * over.size, *a.shape[1:]), a.dtype),
        batch,
    )
    args = spread(state, over), by_rows(wide, over, "data")
    plain = jax.jit(mapped, donate_argnums=0).lower(*args).compile()
    ours = autotm.jit(mapped, budget=0.6, target=gpus, donate_argnums=0)
    compiled = ours.lower(*args).compile()
    plan = ours.plan(*args)
    assert autotm.device_bytes(compiled) <= 0.6 * autotm.device_bytes(plain)
    assert plan.device_bytes == pytest.approx(autotm.device_bytes(compiled), rel=0.03)
    before, after = (collectives(c.as_text() or "") for c in (plain, compiled))
    assert before.count.keys() == after.count.keys()
