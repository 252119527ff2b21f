"""The order of the elements of a value in memory."""

import dataclasses
import functools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import autotm_jax as autotm
from autotm_jax.candidate import Candidate
from autotm_jax.compile import compiler_options
from autotm_jax.emit import emit
from autotm_jax.solve import offload_everything
from autotm_jax.trace import in_order
from autotm_jax.trace.layout import view_of
from benchmarks.workloads import llama

from .compiling import needs_cuda_plugin
from .meshes import mesh
from .programs import program_of
from .steps import SMALL_DECODER


def test_order_changes_no_value():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    found = jax.jit(lambda x: in_order(jnp.swapaxes(x, 1, 2), None) + 1)(x)
    np.testing.assert_array_equal(found, jnp.swapaxes(x, 1, 2) + 1)


def test_each_device_orders_what_it_has():
    over = NamedSharding(mesh(rows=2, columns=2), PartitionSpec("rows", None, None))
    x = jax.device_put(jnp.arange(24.0).reshape(2, 3, 4), over)
    found = jax.jit(lambda x: in_order(2 * x, over))(x)
    np.testing.assert_array_equal(found, 2 * x)
    assert found.sharding.is_equivalent_to(over, 3)


def test_what_a_contraction_of_batches_makes_is_in_order():
    x = jnp.ones((2, 3, 4))

    def step(x: Any) -> Any:
        scores = jnp.einsum("nid,njd->nij", x, x)
        return jnp.sum(scores), jnp.sum(x @ x[0].T), jnp.sum(x[0] @ x[1].T)

    program = program_of(step, x)
    found = [
        program.layouts[e.outputs[0]]
        for e in program.equations
        if e.eqn.primitive.name == "dot_general"
    ]
    # A matrix is written as what reads it likes.
    assert found == [(0, 1, 2), None, None]


def layout(step: Any, *args: Any) -> Any:
    """Of what a step makes, before it is sorted."""
    program = program_of(lambda *args: jax.lax.sort(step(*args)), *args)
    (equation,) = (e for e in program.equations if e.eqn.primitive.name == "sort")
    return program.layouts[equation.inputs[0]]


def test_what_is_fused_keeps_the_order_of_what_it_reads():
    x = jnp.ones((2, 3, 4, 5))

    def heads(x: Any) -> Any:
        return jnp.einsum("bhqd,bhkd->bhqk", x, x)

    assert layout(lambda x: jnp.moveaxis(heads(x), 1, 2), x) == (0, 2, 1, 3)
    softmax = layout(lambda x: jax.nn.softmax(jnp.moveaxis(heads(x), 1, 2)), x)
    assert softmax == (0, 2, 1, 3)
    # Heads side by side are neighbours in memory, their positions are not.
    beside = layout(lambda x: heads(x).transpose(0, 2, 1, 3).reshape(2, 4, 12), x)
    assert beside is None
    after = layout(lambda x: heads(x).transpose(0, 3, 1, 2).reshape(2, 4, 12), x)
    assert after == (0, 2, 1)
    assert layout(lambda x: x[..., None] + 1, x) is None
    # An argument is in order, so that one of the two is turned.
    y = jnp.ones((2, 4, 3, 4))
    beside = layout(lambda x, y: jnp.moveaxis(heads(x), 1, 2) + y, x, y)
    assert beside is None


def test_arguments_and_results_are_in_order_anyway():
    x = jnp.ones((2, 3, 4))
    program = program_of(lambda x: jnp.einsum("nid,njd->nij", x, x), x)
    assert program.layouts[program.arguments[0]] is None
    assert program.layouts[program.results[0]] is None


@pytest.mark.parametrize(
    ("form", "kernel", "order"),
    [
        ("NHWC", "HWIO", (0, 1, 2, 3)),
        ("NCHW", "OIHW", (0, 2, 3, 1)),
        ("CNHW", "OIHW", (1, 2, 3, 0)),
        ("NCW", "WIO", (0, 2, 1)),
        ("NDHWC", "DHWIO", (0, 4, 1, 2, 3)),
        ("NCDHW", "OIDHW", (0, 1, 2, 3, 4)),
    ],
)
def test_channels_are_last_in_images_and_first_in_volumes(
    form: str, kernel: str, order: tuple[int, ...]
):
    sizes = dict(zip("DHWOI", (3, 3, 3, 4, 4), strict=True))
    weights = jnp.ones([sizes[d] for d in kernel])
    images = jnp.ones([{"N": 2, "C": 4}.get(d, 6) for d in form])

    def convolve(x: Any, w: Any) -> Any:
        window = (1,) * (len(form) - 2)
        rest = {"dimension_numbers": (form, kernel, form)}
        return jax.lax.conv_general_dilated(x, w, window, "SAME", **rest)

    assert layout(convolve, images, weights) == order
    assert layout(lambda x, w: jnp.tanh(convolve(x, w)), images, weights) == order
    # The gradient of the images has their order, that of the kernel is not known.
    _, pullback = jax.vjp(convolve, images, weights)
    assert layout(lambda y: pullback(y)[0], images) == order
    assert layout(lambda y: pullback(y)[1], images) is None


def test_channels_are_first_in_double_precision():
    with jax.enable_x64(True):
        images, kernel = jnp.ones((2, 6, 6, 4), float), jnp.ones((3, 3, 4, 4), float)
        form = ("NHWC", "HWIO", "NHWC")

        def convolve(x: Any, w: Any) -> Any:
            rest = {"dimension_numbers": form}
            return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", **rest)

        assert images.dtype == jnp.float64
        assert layout(convolve, images, kernel) == (0, 3, 1, 2)


def test_transforms_are_in_order():
    x = jnp.ones((2, 8, 3))
    assert layout(lambda x: jnp.abs(jnp.fft.rfft(x, axis=1)), x) == (0, 2, 1)


def test_what_is_joined_has_the_order_of_its_parts_if_they_have_one():
    x = jnp.ones((2, 3, 4))

    def step(x: Any, *turned: bool) -> Any:
        made = jnp.einsum("nid,njd->nij", x, x)
        return jnp.concatenate([made.mT if t else made for t in turned], 2)

    assert layout(lambda x: step(x, True, True), x) == (0, 2, 1)
    assert layout(lambda x: step(x, False, False), x) == (0, 1, 2)
    assert layout(lambda x: step(x, False, True), x) is None


def split(draw: random.Random, count: int) -> tuple[int, ...]:
    """A shape of so many elements, a power of two."""
    shape: list[int] = []
    while count > 1:
        shape.append(2 ** draw.randint(0, count.bit_length() - 1))
        count //= shape[-1]
    return (*shape, *[1] * draw.randint(0, 1))


@pytest.mark.parametrize("seed", range(200))
def test_reshapes_are_views_as_those_of_numpy(seed: int):
    draw = random.Random(seed)
    shape, result = split(draw, 64), split(draw, 64)
    order = tuple(draw.sample(range(len(shape)), len(shape)))
    inverse = [order.index(d) for d in range(len(shape))]
    array = np.arange(64).reshape([shape[d] for d in order]).transpose(inverse)
    assert array.shape == shape
    viewed = array.reshape(result)
    found = view_of(shape, order, result)
    assert (found is not None) == np.shares_memory(array, viewed)
    if found is not None:
        assert sorted(found) == list(range(len(result)))
        np.testing.assert_array_equal(viewed.transpose(found).ravel(), np.arange(64))


@needs_cuda_plugin
@pytest.mark.parametrize("budget", [0.5, 0.3])
def test_scores_that_are_read_in_another_order_are_counted(budget: float):
    # The gradient of attention reads its scores in the order of the contraction that
    # computes them again, and their gradient in that of another one.
    config = dataclasses.replace(SMALL_DECODER, batch=4)
    workload = llama.workload(config, "decoder")
    step = autotm.jit(workload.step, budget=budget, target="h100-sxm", donate_argnums=0)
    compiled = step.lower(*workload.args).compile()
    predicted = step.plan(*workload.args).device_bytes
    assert predicted == pytest.approx(autotm.device_bytes(compiled), rel=0.01)


@needs_cuda_plugin
@pytest.mark.parametrize(("form", "space"), [("NCHW", (32, 32)), ("NDHWC", (8, 16, 8))])
def test_what_moves_is_not_turned(form: str, space: tuple[int, ...]):
    rest = {"dimension_numbers": (form, "OI" + "DHW"[-len(space) :], form)}
    window = (1,) * len(space)

    def loss(ws: Any, x: Any) -> Any:
        for w in ws:
            y = jnp.tanh(jax.lax.conv_general_dilated(x, w, window, "SAME", **rest))
            x = x + jnp.sin(y)
        return jnp.sum(x.astype(jnp.float32) ** 2)

    def step(ws: Any, x: Any) -> Any:
        found, grads = jax.value_and_grad(loss)(ws, x)
        return jax.tree.map(lambda w, g: w - g, ws, grads), found

    sizes = dict(zip("DHW"[-len(space) :], space, strict=True), N=32, C=64)
    image = jax.ShapeDtypeStruct([sizes[d] for d in form], jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((64, 64, *[3] * len(space)), jnp.bfloat16)
    found = [kernel] * 6, image
    target, options = autotm.target("h100-sxm"), autotm.SolverOptions()
    of = Candidate(program_of(step, *found), target, 2**37, options)
    schedule = offload_everything(of.problem)
    assert len(schedule.stores) >= 6
    predicted = of.allocation(schedule)
    there = functools.partial(jax.ShapeDtypeStruct, sharding=target.sharding)
    shapes = [there(a.shape, a.dtype) for a in jax.tree.leaves(found)]
    lowered = jax.jit(emit(of.program, schedule)).lower(*shapes)
    compiled = lowered.compile(compiler_options("cuda"))
    taken = compiled.memory_analysis().temp_size_in_bytes
    assert taken == pytest.approx(predicted, rel=0.02)
