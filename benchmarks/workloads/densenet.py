"""DenseNet-264: every layer reads what all layers of its block made, in float32.

The layer before hands on its own input with its output beside it, so the activations of
a block grow with the square of its depth. A convolution comes after its normalisation
and ReLU. The normalisation uses the batch's own statistics (and keeps no running ones),
images are NHWC, the optimizer is plain SGD.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._layers import batch_norm, conv, cross_entropy
from ._optimizers import SGD, Optimizer
from ._parameters import ones, weight, zeros
from ._workload import Workload, training


_BOTTLENECK = 4  # a layer's inner channels over those it adds


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `blocks`: how many layers each dense block has; between two blocks the channels
        and the resolution are halved.
    - `growth`: the channels that a layer adds; the stem makes twice as many.
    - `size`: of the images, in pixels a side.
    - `classes`, `batch`: the other sizes.
    - `optimizer`: owns the state.
    """

    blocks: tuple[int, ...] = (6, 12, 64, 48)
    growth: int = 32
    size: int = 224
    classes: int = 1000
    batch: int = 32
    optimizer: Optimizer = SGD()


TINY = Config(blocks=(2, 3), growth=4, size=32, classes=10, batch=4)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    channels = 2 * config.growth
    stem = {"kernel": weight(7, 7, 3, channels), **_norm(channels)}
    blocks = []
    transitions = []
    for index, count in enumerate(config.blocks):
        if index > 0:
            transitions.append(_unit(1, channels, channels // 2))
            channels //= 2
        block = []
        for _ in range(count):
            block.append(_layer(channels, config.growth))
            channels += config.growth
        blocks.append(block)
    return {
        "stem": stem,
        "blocks": blocks,
        "transitions": transitions,
        "head_norm": _norm(channels),
        "head": weight(channels, config.classes),
        "head_bias": zeros(config.classes),
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random images and labels."""
    images_key, labels_key = jax.random.split(key)
    shape = config.batch, config.size, config.size, 3
    return {
        "images": jax.random.normal(images_key, shape),
        "labels": jax.random.randint(labels_key, (config.batch,), 0, config.classes),
    }


def loss(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """The mean cross-entropy of the labels."""
    stem = params["stem"]
    x = _normal(stem, conv(batch["images"], stem["kernel"], 2))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for index, block in enumerate(params["blocks"]):
        if index > 0:
            x = _halve(_apply_unit(params["transitions"][index - 1], x))
        for layer in block:
            y = _apply_unit(layer["spread"], _apply_unit(layer["narrow"], x))
            x = jnp.concatenate([x, y], -1)
    x = _normal(params["head_norm"], x)
    logits = x.mean((1, 2)) @ params["head"] + params["head_bias"]
    return cross_entropy(logits, batch["labels"])


def workload(config: Config, name: str = "densenet") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        loss,
        functools.partial(batch, config),
        config.optimizer,
    )


def _norm(channels: int) -> dict[str, Any]:
    return {"scale": ones(channels), "bias": zeros(channels)}


def _normal(params: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(batch_norm(x, params["scale"], params["bias"]))


def _unit(size: int, inputs: int, outputs: int) -> dict[str, Any]:
    return {**_norm(inputs), "kernel": weight(size, size, inputs, outputs)}


def _apply_unit(params: Any, x: jax.Array) -> jax.Array:
    # A batch normalisation, a ReLU and a convolution.
    return conv(_normal(params, x), params["kernel"])


def _layer(inputs: int, growth: int) -> dict[str, Any]:
    inner = _BOTTLENECK * growth
    return {"narrow": _unit(1, inputs, inner), "spread": _unit(3, inner, growth)}


def _halve(x: jax.Array) -> jax.Array:
    # The mean of each 2 x 2 pixels.
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / 4
