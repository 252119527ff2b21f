"""A diffusion U-Net that predicts the noise in an image, trained by Adam.

Each level halves the resolution. The outputs of the way down are concatenated to the
inputs of the way up, so they live the longer the earlier they are made; attention sits
at the lowest resolution only.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._layers import attention, conv, layer_norm
from ._optimizers import Adam, Optimizer
from ._parameters import ones, weight, zeros
from ._workload import Workload, training


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `width`: the channels of the first level.
    - `multipliers`: each level's channels over `width`.
    - `blocks`: how many residual blocks each level has, on each way.
    - `groups`: of the normalisation, a divisor of every level's channels.
    - `heads`: of the attention.
    - `size`, `batch`: pixels a side, and images.
    - `optimizer`: owns the state.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    blocks: int = 2
    groups: int = 32
    heads: int = 8
    size: int = 64
    batch: int = 64
    optimizer: Optimizer = Adam()


TINY = Config(width=8, multipliers=(1, 2), blocks=1, groups=4, heads=2, size=8, batch=4)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    time = 4 * config.width
    widths = [config.width * multiplier for multiplier in config.multipliers]
    lowest = widths[-1]
    channels = config.width
    skips = []
    down = []
    for level, width in enumerate(widths):
        blocks = []
        for _ in range(config.blocks):
            blocks.append(_block(channels, width, time))
            channels = width
            skips.append(channels)
        last = level == len(widths) - 1
        down.append({"blocks": blocks, "pool": None if last else _conv(width, width)})
    up = []
    for level, width in reversed(list(enumerate(widths))):
        blocks = []
        for _ in range(config.blocks):
            blocks.append(_block(channels + skips.pop(), width, time))
            channels = width
        up.append({"blocks": blocks, "grow": _conv(width, width) if level else None})
    return {
        "time": {
            "in": weight(config.width, time),
            "in_bias": zeros(time),
            "out": weight(time, time),
            "out_bias": zeros(time),
        },
        "stem": _conv(3, config.width),
        "down": down,
        "middle": {
            "before": _block(lowest, lowest, time),
            "norm": ones(lowest),
            "qkv": weight(lowest, 3 * lowest),
            "out": weight(lowest, lowest),
            "after": _block(lowest, lowest, time),
        },
        "up": up,
        "head_norm": _norm(channels),
        "head": _conv(channels, 3),
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random images, the noise to add to them, and how far along each one is."""
    images_key, noise_key, time_key = jax.random.split(key, 3)
    shape = config.batch, config.size, config.size, 3
    return {
        "images": jax.random.normal(images_key, shape),
        "noise": jax.random.normal(noise_key, shape),
        "time": jax.random.uniform(time_key, (config.batch,)),
    }


def loss(params: Any, batch: dict[str, jax.Array], config: Config) -> jax.Array:
    """The mean squared error of the predicted noise, on a cosine schedule."""
    angle = (batch["time"] * jnp.pi / 2)[:, None, None, None]
    noisy = jnp.cos(angle) * batch["images"] + jnp.sin(angle) * batch["noise"]
    error = _predict(params, noisy, batch["time"], config) - batch["noise"]
    return jnp.mean(jnp.square(error))


def workload(config: Config, name: str = "unet") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        functools.partial(loss, config=config),
        functools.partial(batch, config),
        config.optimizer,
    )


def _predict(params: Any, x: jax.Array, time: jax.Array, config: Config) -> jax.Array:
    block = functools.partial(
        _apply_block, time=_embed(params["time"], time), groups=config.groups
    )
    x = _apply_conv(params["stem"], x)
    skips = []
    for level in params["down"]:
        for block_params in level["blocks"]:
            x = block(block_params, x)
            skips.append(x)
        if level["pool"] is not None:
            x = _apply_conv(level["pool"], x, stride=2)
    middle = params["middle"]
    x = block(middle["before"], x)
    x = _attend(middle, x, config.heads)
    x = block(middle["after"], x)
    for level in params["up"]:
        for block_params in level["blocks"]:
            x = block(block_params, jnp.concatenate([x, skips.pop()], -1))
        if level["grow"] is not None:
            x = _apply_conv(level["grow"], x.repeat(2, 1).repeat(2, 2))
    x = jax.nn.silu(_apply_norm(params["head_norm"], x, config.groups))
    return _apply_conv(params["head"], x)


def _embed(params: Any, time: jax.Array) -> jax.Array:
    # Sinusoids of the time, and two layers on them.
    half = len(params["in"]) // 2
    frequencies = jnp.exp(jnp.arange(half) * (-math.log(10000) / half))
    angles = 1000 * time[:, None] * frequencies
    x = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
    x = jax.nn.silu(x @ params["in"] + params["in_bias"])
    return jax.nn.silu(x @ params["out"] + params["out_bias"])


def _conv(inputs: int, outputs: int, size: int = 3) -> dict[str, Any]:
    return {"kernel": weight(size, size, inputs, outputs), "bias": zeros(outputs)}


def _apply_conv(params: Any, x: jax.Array, stride: int = 1) -> jax.Array:
    return conv(x, params["kernel"], stride) + params["bias"]


def _norm(channels: int) -> dict[str, Any]:
    return {"scale": ones(channels), "bias": zeros(channels)}


def _apply_norm(params: Any, x: jax.Array, groups: int) -> jax.Array:
    grouped = x.reshape(*x.shape[:3], groups, -1)
    mean = grouped.mean((1, 2, 4), keepdims=True)
    variance = ((grouped - mean) ** 2).mean((1, 2, 4), keepdims=True)
    normal = (grouped - mean) * lax.rsqrt(variance + 1e-5)
    return normal.reshape(x.shape) * params["scale"] + params["bias"]


def _block(inputs: int, outputs: int, time: int) -> dict[str, Any]:
    return {
        "first_norm": _norm(inputs),
        "first": _conv(inputs, outputs),
        "time": weight(time, outputs),
        "second_norm": _norm(outputs),
        "second": _conv(outputs, outputs),
        "skip": None if inputs == outputs else _conv(inputs, outputs, size=1),
    }


def _apply_block(params: Any, x: jax.Array, time: jax.Array, groups: int) -> jax.Array:
    y = jax.nn.silu(_apply_norm(params["first_norm"], x, groups))
    y = _apply_conv(params["first"], y) + (time @ params["time"])[:, None, None]
    y = jax.nn.silu(_apply_norm(params["second_norm"], y, groups))
    y = _apply_conv(params["second"], y)
    return y + (x if params["skip"] is None else _apply_conv(params["skip"], x))


def _attend(params: Any, x: jax.Array, heads: int) -> jax.Array:
    flat = x.reshape(len(x), -1, x.shape[-1])
    mixed = attention(layer_norm(flat, params["norm"]) @ params["qkv"], heads)
    return x + (mixed @ params["out"]).reshape(x.shape)
