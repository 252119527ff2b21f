"""Training steps that are small enough to run, and how to compare them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import workloads
from benchmarks.workloads import Workload, gpt, llama


TINY = ("gpt-tiny", "resnet-tiny", "mlp-tiny")
MORE = (
    "vit-tiny",
    "unet-tiny",
    "densenet-tiny",
    "dlrm-tiny",
)  # traced; `dlrm-tiny` is run as well

# Two layers that compile for a GPU in seconds, with values worth moving.
SMALL_GPT = gpt.Config(
    layers=2, width=256, heads=4, vocabulary=1024, length=256, batch=4
)

# A decoder in a loop, with attention in groups.
SMALL_DECODER = dataclasses.replace(
    llama.TINY,
    layers=8,
    width=1024,
    heads=8,
    groups=2,
    hidden=3584,
    vocabulary=8192,
    length=1024,
    batch=16,
    dtype=jnp.bfloat16,
)


@functools.cache
def get(name: str) -> Workload:
    """A workload of the benchmarks, made once."""
    return workloads.get(name)


def chain(x: Any, weights: Any) -> Any:
    """A few layers whose activations the backward pass waits for."""
    for weight in weights:
        x = jnp.tanh(x @ weight)
    return jnp.mean(x**2)


def chain_arguments(layers: int = 6, width: int = 32, batch: int = 64) -> Any:
    """Arguments of `chain`."""
    keys = jax.random.split(jax.random.key(7), layers + 1)
    x = jax.random.normal(keys[0], (batch, width))
    return x, [jax.random.normal(k, (width, width)) / width**0.5 for k in keys[1:]]


chain_step = jax.value_and_grad(chain, argnums=1)


def unrepeatable(x: Any, weights: Any) -> Any:
    """As `chain`, but no activation may be computed a second time."""
    hold = jax.lax.optimization_barrier
    for weight in weights:
        x = hold(jnp.tanh(hold(x @ weight)))
    return jnp.mean(x**2)


moving_step = jax.value_and_grad(unrepeatable, argnums=1)


def assert_close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Equal trees, up to a part of the largest element of each array."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = np.abs(b).max(initial=0.0)
        assert np.abs(a - b).max(initial=0.0) <= tolerance * scale
