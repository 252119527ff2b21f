"""ResNet-50: bottleneck blocks with batch normalisation, in float32.

The stride of a block sits on its 3x3 convolution ("v1.5") unless the configuration puts
it on the last one, the normalisation uses the batch's own statistics (and keeps no
running ones), images are NHWC. With plain SGD, a batch of 64 and images of 224 x 224, a
plain `jax.jit` compiled for an H100 takes 5,668 MiB of temporaries. (NCHW takes 5,443,
the stride on the first 1x1 5,398.)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax

from ._images import labelled_images
from ._layers import batch_norm, conv, cross_entropy, max_pool
from ._optimizers import SGD, Optimizer
from ._parameters import ones, weight, zeros
from ._remat import checkpointed
from ._workload import Workload, training


_EXPANSION = 4  # a bottleneck's output channels over its inner ones


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `blocks`: how many blocks each stage has; each stage doubles the channels.
    - `width`: the channels of the stem, and inner ones of the first stage.
    - `strided`: which convolution of a stage's first block halves the resolution: the
        `"spatial"` one of 3x3, or the 1x1 that comes last, to `"expand"` the channels.
    - `size`: of the images, in pixels a side.
    - `classes`, `batch`: the other sizes.
    - `remat`: a policy of `jax.checkpoint_policies` to apply `jax.checkpoint` with to
        each block, or `None` for no `jax.checkpoint`.
    - `optimizer`: owns the state.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    strided: Literal["spatial", "expand"] = "spatial"
    size: int = 224
    classes: int = 1000
    batch: int = 64
    remat: Callable[..., Any] | None = None
    optimizer: Optimizer = SGD()


SMALL = Config(blocks=(2, 2, 2), width=32, size=64, classes=100, batch=16)


TINY = Config(blocks=(1, 2), width=8, size=32, classes=10, batch=4)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    stages = []
    channels = config.width
    for index, count in enumerate(config.blocks):
        inner = config.width * 2**index
        stage = []
        for block in range(count):
            stage.append(_block(channels, inner, projected=block == 0))
            channels = _EXPANSION * inner
        stages.append(stage)
    return {
        "stem": _unit(7, 3, config.width),
        "stages": stages,
        "head": weight(channels, config.classes),
        "head_bias": zeros(config.classes),
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random images and labels."""
    return labelled_images(key, config.batch, config.size, config.classes)


def loss(params: Any, batch: dict[str, jax.Array], config: Config) -> jax.Array:
    """The mean cross-entropy of the labels."""
    x = jax.nn.relu(_apply_unit(params["stem"], batch["images"], 2))
    x = max_pool(x, 3, 2)
    for index, stage in enumerate(params["stages"]):
        for number, block in enumerate(stage):
            stride = 2 if index > 0 and number == 0 else 1
            strides = {config.strided: stride}
            apply = functools.partial(_apply_block, **strides)
            x = checkpointed(apply, config.remat)(block, x)
    logits = x.mean((1, 2)) @ params["head"] + params["head_bias"]
    return cross_entropy(logits, batch["labels"])


def workload(config: Config, name: str = "resnet") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        functools.partial(loss, config=config),
        functools.partial(batch, config),
        config.optimizer,
    )


def _unit(size: int, inputs: int, outputs: int) -> dict[str, Any]:
    return {
        "kernel": weight(size, size, inputs, outputs),
        "scale": ones(outputs),
        "bias": zeros(outputs),
    }


def _apply_unit(params: Any, x: jax.Array, stride: int = 1) -> jax.Array:
    # A convolution and its batch normalisation.
    x = conv(x, params["kernel"], stride)
    return batch_norm(x, params["scale"], params["bias"])


def _block(inputs: int, inner: int, projected: bool) -> dict[str, Any]:
    outputs = _EXPANSION * inner
    block = {
        "reduce": _unit(1, inputs, inner),
        "spatial": _unit(3, inner, inner),
        "expand": _unit(1, inner, outputs),
    }
    return block | {"project": _unit(1, inputs, outputs)} if projected else block


def _apply_block(
    params: Any, x: jax.Array, spatial: int = 1, expand: int = 1
) -> jax.Array:
    # With the strides of two of its convolutions.
    y = jax.nn.relu(_apply_unit(params["reduce"], x))
    y = jax.nn.relu(_apply_unit(params["spatial"], y, spatial))
    y = _apply_unit(params["expand"], y, expand)
    if "project" in params:
        x = _apply_unit(params["project"], x, spatial * expand)
    return jax.nn.relu(x + y)
