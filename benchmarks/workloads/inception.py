"""Inception v4 without normalisation: blocks of parallel branches, in float32.

The network of Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of
Residual Connections on Learning" (2016, arXiv 1602.07261): the tables below are its
figures 3 to 8, and figure 9 puts them together. As in AutoTM's evaluation a convolution
has a bias in place of the batch normalisation before its ReLU, and there is no dropout.
Images are NHWC, the optimizer is plain SGD.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._images import labelled_images
from ._layers import conv, cross_entropy, max_pool, mean_pool
from ._optimizers import SGD, Optimizer
from ._parameters import weight, zeros
from ._workload import Workload, training


_WIDTH = 32  # the filters of the first convolution; it divides those of all others


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `blocks`: how many blocks of kinds A, B and C there are.
    - `width`: the filters of the first convolution; all others are in proportion.
    - `size`: of the images, in pixels a side; at least 75.
    - `classes`, `batch`: the other sizes.
    - `optimizer`: owns the state.
    """

    blocks: tuple[int, int, int] = (4, 7, 3)
    width: int = _WIDTH
    size: int = 299
    classes: int = 1000
    batch: int = 64
    optimizer: Optimizer = SGD()


TINY = Config(
    blocks=(1, 1, 1),
    width=2,
    size=75,
    classes=10,
    batch=4,
    optimizer=SGD(0.01),
)


class _Conv(NamedTuple):
    # A convolution, with a bias and a ReLU.
    height: int
    width: int
    filters: int
    padding: str = "SAME"
    stride: int = 1


class _Branches:
    # Chains that read the same; what they make is concatenated.
    def __init__(self, *chains: "_Chain") -> None:
        self.chains = chains


_Layer = _Conv | _Branches | Callable[[jax.Array], jax.Array]
_Chain = tuple[_Layer, ...]

_HALVE = functools.partial(max_pool, size=3, stride=2, padding="VALID")
_SMOOTH = functools.partial(mean_pool, size=3, stride=1)

_STEM: _Chain = (
    _Conv(3, 3, 32, "VALID", 2),
    _Conv(3, 3, 32, "VALID"),
    _Conv(3, 3, 64),
    _Branches((_HALVE,), (_Conv(3, 3, 96, "VALID", 2),)),
    _Branches(
        (_Conv(1, 1, 64), _Conv(3, 3, 96, "VALID")),
        (
            _Conv(1, 1, 64),
            _Conv(7, 1, 64),
            _Conv(1, 7, 64),
            _Conv(3, 3, 96, "VALID"),
        ),
    ),
    _Branches((_Conv(3, 3, 192, "VALID", 2),), (_HALVE,)),
)

_BLOCK_A = _Branches(
    (_SMOOTH, _Conv(1, 1, 96)),
    (_Conv(1, 1, 96),),
    (_Conv(1, 1, 64), _Conv(3, 3, 96)),
    (_Conv(1, 1, 64), _Conv(3, 3, 96), _Conv(3, 3, 96)),
)

_REDUCE_A = _Branches(
    (_HALVE,),
    (_Conv(3, 3, 384, "VALID", 2),),
    (_Conv(1, 1, 192), _Conv(3, 3, 224), _Conv(3, 3, 256, "VALID", 2)),
)

_BLOCK_B = _Branches(
    (_SMOOTH, _Conv(1, 1, 128)),
    (_Conv(1, 1, 384),),
    (_Conv(1, 1, 192), _Conv(1, 7, 224), _Conv(7, 1, 256)),
    (
        _Conv(1, 1, 192),
        _Conv(1, 7, 192),
        _Conv(7, 1, 224),
        _Conv(1, 7, 224),
        _Conv(7, 1, 256),
    ),
)

_REDUCE_B = _Branches(
    (_HALVE,),
    (_Conv(1, 1, 192), _Conv(3, 3, 192, "VALID", 2)),
    (
        _Conv(1, 1, 256),
        _Conv(1, 7, 256),
        _Conv(7, 1, 320),
        _Conv(3, 3, 320, "VALID", 2),
    ),
)

_FORK = _Branches((_Conv(1, 3, 256),), (_Conv(3, 1, 256),))

_BLOCK_C = _Branches(
    (_SMOOTH, _Conv(1, 1, 256)),
    (_Conv(1, 1, 256),),
    (_Conv(1, 1, 384), _FORK),
    (_Conv(1, 1, 384), _Conv(1, 3, 448), _Conv(3, 1, 512), _FORK),
)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    layers, channels = _describe(_network(config), 3, config.width)
    return {
        "layers": layers,
        "head": weight(channels, config.classes),
        "head_bias": zeros(config.classes),
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random images and labels."""
    return labelled_images(key, config.batch, config.size, config.classes)


def loss(params: Any, batch: dict[str, jax.Array], config: Config) -> jax.Array:
    """The mean cross-entropy of the labels."""
    x = _apply(_network(config), params["layers"], batch["images"])
    logits = x.mean((1, 2)) @ params["head"] + params["head_bias"]
    return cross_entropy(logits, batch["labels"])


def workload(config: Config, name: str = "inception") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        functools.partial(loss, config=config),
        functools.partial(batch, config),
        config.optimizer,
    )


def _network(config: Config) -> _Chain:
    a, b, c = config.blocks
    late = (*(_BLOCK_B,) * b, _REDUCE_B, *(_BLOCK_C,) * c)
    return (*_STEM, *(_BLOCK_A,) * a, _REDUCE_A, *late)


def _describe(chain: _Chain, channels: int, width: int) -> tuple[list[Any], int]:
    # The parameters of each layer, and the channels of what the last one makes.
    found: list[Any] = []
    for layer in chain:
        if isinstance(layer, _Conv):
            outputs = layer.filters * width // _WIDTH
            # The gain makes up for what the ReLU takes.
            shape = layer.height, layer.width, channels, outputs
            kernel = weight(*shape, gain=math.sqrt(2))
            found.append({"kernel": kernel, "bias": zeros(outputs)})
            channels = outputs
        elif isinstance(layer, _Branches):
            branches = [_describe(each, channels, width) for each in layer.chains]
            found.append([params for params, _ in branches])
            channels = sum(outputs for _, outputs in branches)
        else:
            found.append(None)
    return found, channels


def _apply(chain: _Chain, params: Any, x: jax.Array) -> jax.Array:
    for layer, own in zip(chain, params, strict=True):
        if isinstance(layer, _Conv):
            x = conv(x, own["kernel"], layer.stride, layer.padding)
            x = jax.nn.relu(x + own["bias"])
        elif isinstance(layer, _Branches):
            pairs = zip(layer.chains, own, strict=True)
            x = jnp.concatenate([_apply(each, part, x) for each, part in pairs], -1)
        else:
            x = layer(x)
    return x
