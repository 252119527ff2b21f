"""VGG: nothing but 3x3 convolutions, pooling and three wide layers, in float32.

The networks of Simonyan and Zisserman, "Very Deep Convolutional Networks for
Large-Scale Image Recognition" (2014, arXiv 1409.1556, table 1). Every convolution has a
bias and a ReLU, nothing is normalised or dropped, images are NHWC, the optimizer is
plain SGD. Nothing branches: each activation waits for its own turn of the backward
pass, the first ones the longest, and these are the largest.
"""

import dataclasses
import functools
import math
from typing import Any

import jax

from ._images import labelled_images
from ._layers import conv, cross_entropy, max_pool
from ._optimizers import SGD, Optimizer
from ._parameters import weight, zeros
from ._workload import Workload, training


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `stages`: the channels that each convolution makes, in tuples after which the
        resolution is halved. The default is VGG-19.
    - `hidden`: the width of the two layers before the last.
    - `size`: of the images, in pixels a side.
    - `classes`, `batch`: the other sizes.
    - `optimizer`: owns the state.
    """

    stages: tuple[tuple[int, ...], ...] = (
        (64,) * 2,
        (128,) * 2,
        (256,) * 4,
        (512,) * 4,
        (512,) * 4,
    )
    hidden: int = 4096
    size: int = 224
    classes: int = 1000
    batch: int = 64
    optimizer: Optimizer = SGD()


VGG416 = Config(
    stages=(
        (64,) * 81 + (128,),
        (128,) * 81 + (256,),
        (256,) * 82 + (512,),
        (512,) * 83,
        (512,) * 83,
    ),
    batch=32,
)
"""VGG-16 with 80 more convolutions in each stage: 413 of them, and three wide layers.

By Rhu et al., "vDNN: Virtualized Deep Neural Networks for Scalable, Memory-Efficient
Neural Network Design" (2016). As in the code of AutoTM's evaluation the last
convolution of a stage, not the first of the next one, widens the channels.
"""


TINY = Config(
    stages=((8, 16), (16, 16)),
    hidden=32,
    size=16,
    classes=10,
    batch=4,
    optimizer=SGD(0.003),
)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    channels = 3
    stages = []
    for stage in config.stages:
        convolutions = []
        for outputs in stage:
            convolutions.append(_layer(3, 3, channels, outputs))
            channels = outputs
        stages.append(convolutions)
    side = config.size // 2 ** len(config.stages)
    return {
        "stages": stages,
        "first": _layer(side**2 * channels, config.hidden),
        "second": _layer(config.hidden, config.hidden),
        "head": weight(config.hidden, config.classes),
        "head_bias": zeros(config.classes),
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random images and labels."""
    return labelled_images(key, config.batch, config.size, config.classes)


def loss(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """The mean cross-entropy of the labels."""
    x = batch["images"]
    for stage in params["stages"]:
        for layer in stage:
            x = jax.nn.relu(conv(x, layer["kernel"]) + layer["bias"])
        x = max_pool(x, 2, 2, "VALID")
    x = x.reshape(len(x), -1)
    for layer in (params["first"], params["second"]):
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    logits = x @ params["head"] + params["head_bias"]
    return cross_entropy(logits, batch["labels"])


def workload(config: Config, name: str = "vgg") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        loss,
        functools.partial(batch, config),
        config.optimizer,
    )


def _layer(*shape: int) -> dict[str, Any]:
    # The gain makes up for what a ReLU takes: over 400 layers nothing would be left.
    return {"kernel": weight(*shape, gain=math.sqrt(2)), "bias": zeros(shape[-1])}
