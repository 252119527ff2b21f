"""A multi-layer perceptron: the smallest net whose activations fill a device."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from ._optimizers import SGD, Optimizer
from ._parameters import weight, zeros
from ._workload import Workload, training


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `depth`: how many layers, all of the same width.
    - `width`, `batch`: the sizes.
    - `dtype`: of the parameters and activations.
    - `optimizer`: owns the state.
    """

    depth: int = 16
    width: int = 4096
    batch: int = 8192
    dtype: Any = jnp.float32
    optimizer: Optimizer = SGD()


SMALL = Config(depth=8, width=1024, batch=512)


TINY = Config(depth=3, width=16, batch=8)


def parameters(config: Config) -> list[dict[str, Any]]:
    """Describes the parameters, one dictionary a layer."""
    layer = {
        "kernel": weight(config.width, config.width, gain=2**0.5, dtype=config.dtype),
        "bias": zeros(config.width, dtype=config.dtype),
    }
    return [layer] * config.depth


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random inputs and targets."""
    shape = config.batch, config.width
    inputs, targets = jax.random.normal(key, (2, *shape), config.dtype)
    return {"inputs": inputs, "targets": targets}


def loss(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """The mean squared error."""
    *hidden, last = params
    x = batch["inputs"]
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    error = x @ last["kernel"] + last["bias"] - batch["targets"]
    return jnp.mean(jnp.square(error.astype(jnp.float32)))


def workload(config: Config, name: str = "mlp") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        loss,
        functools.partial(batch, config),
        config.optimizer,
    )
