"""The layers that more than one model uses. Images are NHWC, kernels HWIO."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def layer_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Normalises the last axis, with float32 statistics."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    variance = ((x32 - mean) ** 2).mean(-1, keepdims=True)
    return ((x32 - mean) * lax.rsqrt(variance + 1e-5)).astype(x.dtype) * scale


def conv(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "SAME"
) -> jax.Array:
    """A two-dimensional convolution."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def max_pool(x: jax.Array, size: int, stride: int, padding: str = "SAME") -> jax.Array:
    """The largest of each `size` x `size` pixels."""
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


def mean_pool(x: jax.Array, size: int, stride: int, padding: str = "SAME") -> jax.Array:
    """The mean of each `size` x `size` pixels; those of the padding are zeros."""
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, strides, padding) / size**2


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalises the channels of images by the statistics of this batch."""
    mean = x.mean((0, 1, 2))
    variance = ((x - mean) ** 2).mean((0, 1, 2))
    return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + bias


def attention(
    qkv: jax.Array,
    heads: int,
    causal: bool = False,
    drop: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> jax.Array:
    """Plain attention with a float32 softmax; the scores are materialised.

    **Arguments:**

    - `qkv`: queries, keys and values side by side, `(batch, length, 3 * size)`.
    - `heads`: how many heads share `size`.
    - `causal`: whether a position sees only itself and those before it.
    - `drop`: dropout on the attention weights.

    **Returns:**

    The heads' results side by side, `(batch, length, size)`.
    """
    batch, length, triple = qkv.shape
    size = triple // 3 // heads

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(batch, length, heads, size).transpose(0, 2, 1, 3)

    q, k, v = map(split, jnp.split(qkv, 3, -1))
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k).astype(jnp.float32) / size**0.5
    if causal:
        seen = jnp.tril(jnp.ones((length, length), bool))
        scores = jnp.where(seen, scores, -1e30)
    weights = drop(jax.nn.softmax(scores, -1).astype(qkv.dtype))
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, heads * size)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean negative log-likelihood of integer labels."""
    log_probabilities = jax.nn.log_softmax(logits, -1)
    return -jnp.take_along_axis(log_probabilities, labels[..., None], -1).mean()
