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

from ._images import labelled_images
from ._layers import batch_norm, conv, cross_entropy, max_pool, mean_pool
from ._optimizers import SGD, Optimizer
from ._parameters import ones, weight, zeros
from ._workload import Workload, training


_BOTTLENECK = 4  # a layer's inner channels over those it adds


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `blocks`: how many layers each dense block has; between two blocks the resolution
        is halved.
    - `growth`: the channels that a layer adds; the stem makes twice as many.
    - `transition`: the channels that a block hands to the next one, or `None` for half
        of those it made.
    - `size`: of the images, in pixels a side.
    - `classes`, `batch`: the other sizes.
    - `optimizer`: owns the state.
    """

    blocks: tuple[int, ...] = (6, 12, 64, 48)
    growth: int = 32
    transition: int | None = None
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
            outputs = config.transition or channels // 2
            transitions.append(_unit(1, channels, outputs))
            channels = outputs
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
    return labelled_images(key, config.batch, config.size, config.classes)


def loss(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """The mean cross-entropy of the labels."""
    stem = params["stem"]
    x = _normal(stem, conv(batch["images"], stem["kernel"], 2))
    x = max_pool(x, 3, 2)
    for index, block in enumerate(params["blocks"]):
        if index > 0:
            x = _apply_unit(params["transitions"][index - 1], x)
            x = mean_pool(x, 2, 2, "VALID")
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
