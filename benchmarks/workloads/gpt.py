"""A decoder-only transformer with tied embeddings, trained by Adam.

The default configuration is the reference of this project: 12 layers of width 1,024 at
16 sequences of 1,024 tokens, bfloat16 parameters, float32 moments. Compiled for an
H100 by a plain `jax.jit` it takes 1,763 MiB of arguments and 23 GiB of temporaries,
most of them the attention scores that the backward pass waits for.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from autotm_jax import kernels

from ._layers import attention, cross_entropy, layer_norm
from ._optimizers import Adam, Optimizer
from ._parameters import Parameter, embedding, ones, stacked, weight
from ._remat import LAYER_INPUT as LAYER_INPUT
from ._remat import checkpointed
from ._workload import Workload, training


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `layers`, `width`, `heads`, `vocabulary`, `length`, `batch`: the sizes.
    - `dtype`: of the parameters and activations; softmax and moments are float32.
    - `dropout`: the rate on embeddings, attention weights and both residual branches.
        If not 0 the batch holds the random key as `"key"`.
    - `remat`: a policy of `jax.checkpoint_policies` to apply `jax.checkpoint` with to
        each layer, or `None` for no `jax.checkpoint`.
    - `optimizer`: owns the state.
    - `variants`: attention and loss of `autotm_jax.kernels`, which a plan may run in
        several ways. Without dropout.
    - `scanned`: the layers are one `jax.lax.scan` over stacked parameters.
    """

    layers: int = 12
    width: int = 1024
    heads: int = 16
    vocabulary: int = 32000
    length: int = 1024
    batch: int = 16
    dtype: Any = jnp.bfloat16
    dropout: float = 0.0
    remat: Callable[..., Any] | None = None
    optimizer: Optimizer = Adam()
    variants: bool = False
    scanned: bool = False

    def __post_init__(self) -> None:
        if self.variants and self.dropout:
            raise ValueError("The attention that has variants has no dropout.")


SMALL = Config(
    layers=4,
    width=256,
    heads=4,
    vocabulary=2048,
    length=128,
    batch=8,
    dtype=jnp.float32,
)


TINY = Config(
    layers=2,
    width=32,
    heads=2,
    vocabulary=256,
    length=16,
    batch=4,
    dtype=jnp.float32,
)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    width = config.width
    matrix = functools.partial(weight, dtype=config.dtype)
    table = functools.partial(embedding, dtype=config.dtype)
    scale = ones(width, dtype=config.dtype)
    layer = {
        "attention_norm": scale,
        "qkv": matrix(width, 3 * width),
        "out": matrix(width, width),
        "mlp_norm": scale,
        "up": matrix(width, 4 * width),
        "down": matrix(4 * width, width),
    }
    return {
        "tokens": table(config.vocabulary, width),
        "positions": table(config.length, width),
        "layers": _layers(layer, config),
        "final_norm": scale,
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random tokens, one more than the model reads, and the key for dropout."""
    tokens_key, dropout_key = jax.random.split(key)
    shape = config.batch, config.length + 1
    made = {"tokens": jax.random.randint(tokens_key, shape, 0, config.vocabulary)}
    return made | {"key": dropout_key} if config.dropout else made


def loss(params: Any, batch: dict[str, jax.Array], config: Config) -> jax.Array:
    """The mean cross-entropy of each next token."""
    layer = checkpointed(functools.partial(_layer, config=config), config.remat)
    tokens = batch["tokens"]
    first, *rest = _split(batch.get("key"), config.layers + 1)
    x = params["tokens"][tokens[:, :-1]] + params["positions"]
    x = _dropout(x, first, config.dropout)
    if config.scanned:
        keys = None if rest[0] is None else jnp.stack(rest)
        x, _ = jax.lax.scan(
            lambda x, of_layer: (layer(of_layer[0], x, of_layer[1]), None),
            x,
            (params["layers"], keys),
        )
    else:
        for layer_params, key in zip(params["layers"], rest, strict=True):
            x = layer(layer_params, x, key)
    x = layer_norm(x, params["final_norm"])
    if config.variants:
        return kernels.cross_entropy(x, params["tokens"].T, tokens[:, 1:])
    logits = (x @ params["tokens"].T).astype(jnp.float32)
    return cross_entropy(logits, tokens[:, 1:])


def workload(config: Config, name: str = "gpt") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        functools.partial(loss, config=config),
        functools.partial(batch, config),
        config.optimizer,
    )


def _layers(layer: dict[str, Parameter], config: Config) -> Any:
    if not config.scanned:
        return [layer] * config.layers
    return {name: stacked(config.layers, each) for name, each in layer.items()}


def _layer(
    params: Any, x: jax.Array, key: jax.Array | None, config: Config
) -> jax.Array:
    weights_key, attention_key, mlp_key = _split(key, 3)
    drop = functools.partial(_dropout, rate=config.dropout)
    qkv = layer_norm(x, params["attention_norm"]) @ params["qkv"]
    if config.variants:
        mixed = _attention_with_variants(qkv, config.heads)
    else:
        mixed = attention(
            qkv, config.heads, True, lambda weights: drop(weights, weights_key)
        )
    x = x + drop(mixed @ params["out"], attention_key)
    hidden = jax.nn.gelu(layer_norm(x, params["mlp_norm"]) @ params["up"])
    return x + drop(hidden @ params["down"], mlp_key)


def _attention_with_variants(qkv: jax.Array, heads: int) -> jax.Array:
    batch, length, triple = qkv.shape
    q, k, v = jnp.split(qkv.reshape(batch, length, 3 * heads, -1), 3, 2)
    mixed = kernels.attention(q, k, v, causal=True)
    return mixed.reshape(batch, length, triple // 3)


def _split(key: jax.Array | None, count: int) -> list[jax.Array | None]:
    return [None] * count if key is None else list(jax.random.split(key, count))


def _dropout(x: jax.Array, key: jax.Array | None, rate: float) -> jax.Array:
    if key is None:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
