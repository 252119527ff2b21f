"""Parameters as descriptions, so that a model's shapes are written once."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One array of parameters: normally distributed around a constant."""

    shape: tuple[int, ...]
    mean: float
    deviation: float
    dtype: Any


def weight(*shape: int, gain: float = 1.0, dtype: Any = jnp.float32) -> Parameter:
    """A matrix or kernel, scaled by its fan-in (all dimensions but the last)."""
    return Parameter(shape, 0.0, gain / math.sqrt(math.prod(shape[:-1])), dtype)


def embedding(*shape: int, dtype: Any = jnp.float32) -> Parameter:
    """A table of vectors."""
    return Parameter(shape, 0.0, 0.02, dtype)


def ones(*shape: int, dtype: Any = jnp.float32) -> Parameter:
    """The scale of a normalisation."""
    return Parameter(shape, 1.0, 0.0, dtype)


def zeros(*shape: int, dtype: Any = jnp.float32) -> Parameter:
    """A bias."""
    return Parameter(shape, 0.0, 0.0, dtype)


def stacked(count: int, each: Parameter) -> Parameter:
    """A parameter of each of so many layers, in one array."""
    return dataclasses.replace(each, shape=(count, *each.shape))


def abstract(parameters: Any) -> Any:
    """A pytree of [`Parameter`][] leaves as one of `jax.ShapeDtypeStruct`."""

    def shape(leaf: Parameter) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    return jax.tree.map(shape, parameters)


def initialise(parameters: Any, seed: int) -> Any:
    """Draws the arrays that a pytree of [`Parameter`][] leaves describes.

    They are drawn on the host, which compiles nothing and leaves no temporaries on
    the device.
    """
    generator = np.random.default_rng(seed)

    def draw(leaf: Parameter) -> jax.Array:
        noise = generator.standard_normal(leaf.shape, np.float32)
        return jnp.asarray(leaf.mean + leaf.deviation * noise, leaf.dtype)

    return jax.tree.map(draw, parameters)
