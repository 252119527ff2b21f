import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax import register_flops, variants
from autotm_jax.machine import describe
from autotm_jax.profile.roofline import _rules, flops, seconds

from .programs import program_of


H100 = describe("h100-sxm")


def flops_of(step: Any, *shapes: tuple[int, ...]) -> float:
    """Operations of all equations of a function of arrays of these shapes."""
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return sum(flops(eqn) for eqn in jax.make_jaxpr(step)(*args).jaxpr.eqns)


@pytest.mark.parametrize(
    ("spec", "shapes", "operations"),
    [
        ("ij,jk->ik", [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
        ("bij,bjk->bik", [(4, 3, 5), (4, 5, 7)], 2 * 4 * 3 * 5 * 7),
        ("bij,bij->b", [(4, 3, 5), (4, 3, 5)], 2 * 4 * 3 * 5),
        ("i,j->ij", [(3,), (5,)], 2 * 3 * 5),
    ],
)
def test_contractions(spec: str, shapes: Any, operations: int):
    def step(a: Any, b: Any) -> Any:
        return jnp.einsum(spec, a, b)

    eqns = jax.make_jaxpr(step)(*(jnp.ones(s) for s in shapes))
    assert "dot_general" in str(eqns)
    dot = flops_of(step, *shapes)
    # A transpose beside it takes an operation per element.
    assert operations <= dot <= operations + math.prod(shapes[0]) * 7


def test_convolutions():
    def conv(x: Any, kernel: Any, **options: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers, **options
        )

    # Each of 2*8*8*16 results adds up 3*3*4 products.
    assert flops_of(conv, (2, 8, 8, 4), (3, 3, 4, 16)) == 2 * (2 * 8 * 8 * 16) * 36

    def grouped(x: Any, kernel: Any) -> Any:
        return conv(x, kernel, feature_group_count=4)

    assert flops_of(grouped, (2, 8, 8, 4), (3, 3, 1, 16)) == 2 * (2 * 8 * 8 * 16) * 9


def test_the_backward_pass_of_a_convolution_with_a_stride():
    def conv(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def backward(x: Any, kernel: Any, g: Any) -> Any:
        return jax.vjp(lambda v: conv(v, kernel), x)[1](g)

    forward = flops_of(conv, (2, 8, 8, 4), (3, 3, 4, 16))
    both = flops_of(backward, (2, 8, 8, 4), (3, 3, 4, 16), (2, 4, 4, 16))
    # Zeros between elements are not counted: as much work as the forward pass.
    assert both == pytest.approx(2 * forward, rel=0.2)


def test_loops_multiply():
    def body(c: Any, _: Any) -> Any:
        return c @ c, None

    def loop(length: int) -> Any:
        return lambda x: jax.lax.scan(body, x, None, length=length)[0]

    once = flops_of(loop(1), (8, 8))
    assert once == 2 * 8**3
    assert flops_of(loop(10), (8, 8)) == 10 * once


def test_bodies_count():
    assert flops_of(jax.jit(lambda x: x @ x), (8, 8)) == 2 * 8**3
    assert flops_of(jax.checkpoint(lambda x: x @ x), (8, 8)) == 2 * 8**3
    assert flops_of(jnp.sin, (8, 8)) == 64


def test_a_rule_of_ones_own():
    before = flops_of(lambda x: jax.lax.sort(x), (64,))
    try:
        register_flops("sort")(lambda eqn: 1234.0)
        assert flops_of(lambda x: jax.lax.sort(x), (64,)) == 1234.0
    finally:
        del _rules["sort"]
    assert flops_of(lambda x: jax.lax.sort(x), (64,)) == before


def time_of(step: Any, *args: Any) -> float:
    """Seconds of all segments of a step on an H100."""
    program = program_of(step, *args)
    return sum(seconds(program, s.body, H100) for s in program.segments)


def test_a_large_matmul_is_bound_by_compute():
    big = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16)
    wanted = 2 * 8192**3 / 600e12
    assert time_of(lambda x: x @ x, big) == pytest.approx(wanted, rel=0.02)


def test_a_thin_matmul_is_bound_by_memory():
    wide = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16)
    thin = jax.ShapeDtypeStruct((8192, 1), jnp.bfloat16)
    wanted = 2 * (8192**2 + 2 * 8192) / 2.7e12
    launch = 3e-6
    assert time_of(jnp.matmul, wide, thin) == pytest.approx(wanted + launch, rel=0.02)


def test_element_wise_work_is_one_pass():
    big = jax.ShapeDtypeStruct((2**24,), jnp.float32)
    one = time_of(lambda x: jnp.sin(x), big)
    many = time_of(lambda x: jnp.sin(jnp.cos(x) * 2 + 1), big)
    assert one == pytest.approx(2 * 4 * 2**24 / 2.7e12 + 3e-6, rel=0.02)
    assert many == pytest.approx(one, rel=1e-6)


def test_a_loop_takes_what_its_body_does():
    width, length = 1024, 8
    x = jax.ShapeDtypeStruct((8 * width, width), jnp.bfloat16)
    w = jax.ShapeDtypeStruct((width, width), jnp.bfloat16)

    def layer(x: Any, w: Any) -> Any:
        return jax.nn.softmax(x @ w, -1)

    def looped(x: Any, w: Any) -> Any:
        return jax.lax.scan(lambda c, _: (layer(c, w), None), x, None, length=length)[0]

    once = time_of(layer, x, w)
    assert time_of(looped, x, w) == pytest.approx(length * once, rel=0.01)
    # Not only its flops: a softmax passes through memory.
    assert once > 1.5 * 2 * 8 * width**3 / 600e12
    assert time_of(jax.checkpoint(layer), x, w) == pytest.approx(once, rel=0.05)


def test_of_variants_the_default_counts():
    both = variants(lambda x: x @ x, lambda x: x @ x @ x @ x, names=("one", "three"))
    assert flops_of(both, (8, 8)) == 2 * 8**3
    assert flops_of(jax.checkpoint(lambda x: both(x)), (8, 8)) == 2 * 8**3


@pytest.mark.parametrize(("mask", "share"), [("NO_MASK", 1.0), ("CAUSAL", 0.5)])
def test_attention_of_cudnn(mask: str, share: float):
    def of(name: str) -> float:
        queries, keys = jnp.zeros((2, 5, 3, 8)), jnp.zeros((2, 7, 3, 8))
        return flops(
            SimpleNamespace(
                primitive=SimpleNamespace(name=f"dot_product_attention_{name}_wrapper"),
                invars=[SimpleNamespace(aval=x) for x in (queries, keys, keys)],
                params={"mask_type": f"MaskType.{mask}"},
            )
        )

    assert of("fwd") == share * 2 * (2 * 2 * 3 * 5 * 7 * 8)
    assert of("bwd") == share * 5 * (2 * 2 * 3 * 5 * 7 * 8)


def test_a_kernel_takes_at_least_its_launch():
    assert time_of(lambda x: x @ x, jnp.ones((2, 2))) >= 3e-6


def test_what_reads_the_same_joins_a_later_pass():
    width = 4096

    def both(x: Any, w: Any, g: Any) -> Any:
        y = g @ w  # has to be there first
        return jnp.tanh(x), (y * jnp.cos(x)).astype(x.dtype)

    big = jax.ShapeDtypeStruct((4 * width, width), jnp.bfloat16)
    square = jax.ShapeDtypeStruct((width, width), jnp.bfloat16)
    alone = time_of(lambda x, w, g: both(x, w, g)[1], big, square, big)
    # One more array written, and `x` not read once more.
    written = 2 * 4 * width**2 / 2.7e12
    assert time_of(both, big, square, big) == pytest.approx(alone + written, rel=0.01)


def test_what_a_kernel_reads_is_made_in_a_pass_before_it():
    width = 4096

    def step(x: Any, w: Any) -> Any:
        return jnp.tanh(x) @ w + jnp.cos(x)

    big = jax.ShapeDtypeStruct((4 * width, width), jnp.bfloat16)
    square = jax.ShapeDtypeStruct((width, width), jnp.bfloat16)
    one = 2 * 4 * width**2
    matmul = 2 * 4 * width**3 / 600e12
    # tanh: read and written; the rest: two read, one written.
    wanted = matmul + 5 * one / 2.7e12
    assert time_of(step, big, square) == pytest.approx(wanted, rel=0.02)
