"""A vision transformer that classifies images, trained by Adam.

The default is ViT-S/14 with mean pooling, so that an image has 256 tokens. (XLA of
JAX 0.10.2 fails to compile the backward pass for an absent H100 where the number of
tokens is no multiple of 16, as the 197 of ViT-S/16 with a class token.)
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from ._images import labelled_images
from ._layers import attention, cross_entropy, layer_norm
from ._optimizers import Adam, Optimizer
from ._parameters import embedding, ones, weight, zeros
from ._workload import Workload, training


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `layers`, `width`, `heads`, `classes`, `batch`: the sizes.
    - `size`, `patch`: of an image and of a patch, in pixels a side.
    - `dtype`: of the parameters and activations; softmax and moments are float32.
    - `optimizer`: owns the state.
    """

    layers: int = 12
    width: int = 384
    heads: int = 6
    classes: int = 1000
    batch: int = 256
    size: int = 224
    patch: int = 14
    dtype: Any = jnp.bfloat16
    optimizer: Optimizer = Adam()


TINY = Config(
    layers=2,
    width=16,
    heads=2,
    classes=10,
    batch=4,
    size=16,
    patch=4,
    dtype=jnp.float32,
)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    width = config.width
    tokens = (config.size // config.patch) ** 2
    matrix = functools.partial(weight, dtype=config.dtype)
    bias = functools.partial(zeros, dtype=config.dtype)
    scale = ones(width, dtype=config.dtype)
    layer = {
        "attention_norm": scale,
        "qkv": matrix(width, 3 * width),
        "qkv_bias": bias(3 * width),
        "out": matrix(width, width),
        "out_bias": bias(width),
        "mlp_norm": scale,
        "up": matrix(width, 4 * width),
        "up_bias": bias(4 * width),
        "down": matrix(4 * width, width),
        "down_bias": bias(width),
    }
    return {
        "patches": matrix(3 * config.patch**2, width),
        "positions": embedding(tokens, width, dtype=config.dtype),
        "layers": [layer] * config.layers,
        "final_norm": scale,
        "head": matrix(width, config.classes),
        "head_bias": bias(config.classes),
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random images and labels."""
    return labelled_images(key, config.batch, config.size, config.classes, config.dtype)


def loss(params: Any, batch: dict[str, jax.Array], config: Config) -> jax.Array:
    """The mean cross-entropy of the labels."""
    x = _patches(batch["images"], config.patch) @ params["patches"]
    x = x + params["positions"]
    for layer in params["layers"]:
        x = _layer(layer, x, config.heads)
    x = layer_norm(x, params["final_norm"]).mean(1)
    logits = x @ params["head"] + params["head_bias"]
    return cross_entropy(logits.astype(jnp.float32), batch["labels"])


def workload(config: Config, name: str = "vit") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        functools.partial(loss, config=config),
        functools.partial(batch, config),
        config.optimizer,
    )


def _patches(images: jax.Array, patch: int) -> jax.Array:
    count, size, _, channels = images.shape
    side = size // patch
    tiles = images.reshape(count, side, patch, side, patch, channels)
    tiles = tiles.transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(count, side**2, patch**2 * channels)


def _layer(params: Any, x: jax.Array, heads: int) -> jax.Array:
    y = layer_norm(x, params["attention_norm"])
    y = attention(y @ params["qkv"] + params["qkv_bias"], heads)
    x = x + y @ params["out"] + params["out_bias"]
    y = layer_norm(x, params["mlp_norm"])
    y = jax.nn.gelu(y @ params["up"] + params["up_bias"], approximate=False)
    return x + y @ params["down"] + params["down_bias"]
