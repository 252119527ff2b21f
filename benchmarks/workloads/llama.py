"""A decoder-only transformer of the LLaMA family, scanned over its layers.

RMS norm, rotary positions, grouped queries, a gated feed-forward layer and an output
table of its own. The default configuration has 8 billion parameters: in bfloat16 with
float32 moments they fill half of an H200.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._layers import cross_entropy
from ._optimizers import Adam, Optimizer
from ._parameters import embedding, ones, stacked, weight
from ._remat import checkpointed
from ._workload import Workload, training


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `layers`, `width`, `heads`, `hidden`, `vocabulary`, `length`, `batch`: the sizes.
    - `groups`: how many heads the keys and values have.
    - `dtype`: of the parameters and activations; softmax and moments are float32.
    - `remat`: a policy of `jax.checkpoint_policies` to apply `jax.checkpoint` with to
        each layer, or `None` for no `jax.checkpoint`.
    - `optimizer`: owns the state.
    """

    layers: int = 32
    width: int = 4096
    heads: int = 32
    groups: int = 8
    hidden: int = 14336
    vocabulary: int = 128256
    length: int = 4096
    batch: int = 4
    dtype: Any = jnp.bfloat16
    remat: Callable[..., Any] | None = None
    optimizer: Optimizer = Adam()


TINY = Config(
    layers=3,
    width=32,
    heads=4,
    groups=2,
    hidden=96,
    vocabulary=256,
    length=16,
    batch=2,
    dtype=jnp.float32,
)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    width, size = config.width, config.width // config.heads
    matrix = functools.partial(weight, dtype=config.dtype)
    table = functools.partial(embedding, dtype=config.dtype)
    scale = ones(width, dtype=config.dtype)
    layer = {
        "attention_norm": scale,
        "queries": matrix(width, width),
        "keys": matrix(width, config.groups * size),
        "values": matrix(width, config.groups * size),
        "out": matrix(width, width),
        "mlp_norm": scale,
        "gate": matrix(width, config.hidden),
        "up": matrix(width, config.hidden),
        "down": matrix(config.hidden, width),
    }
    return {
        "tokens": table(config.vocabulary, width),
        "layers": {name: stacked(config.layers, p) for name, p in layer.items()},
        "final_norm": scale,
        "output": matrix(width, config.vocabulary),
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random tokens, one more than the model reads."""
    shape = config.batch, config.length + 1
    return {"tokens": jax.random.randint(key, shape, 0, config.vocabulary)}


def loss(params: Any, batch: dict[str, jax.Array], config: Config) -> jax.Array:
    """The mean cross-entropy of each next token."""
    tokens = batch["tokens"]
    layer = checkpointed(functools.partial(_layer, config=config), config.remat)
    x, _ = jax.lax.scan(
        lambda x, params: (layer(params, x), None),
        params["tokens"][tokens[:, :-1]],
        params["layers"],
    )
    logits = _rms_norm(x, params["final_norm"]) @ params["output"]
    return cross_entropy(logits.astype(jnp.float32), tokens[:, 1:])


def workload(config: Config, name: str = "llama") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        functools.partial(loss, config=config),
        functools.partial(batch, config),
        config.optimizer,
    )


def _layer(params: Any, x: jax.Array, config: Config) -> jax.Array:
    normal = _rms_norm(x, params["attention_norm"])
    x = x + _attention(params, normal, config) @ params["out"]
    normal = _rms_norm(x, params["mlp_norm"])
    gated = jax.nn.silu(normal @ params["gate"]) * (normal @ params["up"])
    return x + gated @ params["down"]


def _attention(params: Any, x: jax.Array, config: Config) -> jax.Array:
    size, shared = config.width // config.heads, config.heads // config.groups

    def heads(name: str) -> jax.Array:
        made = x @ params[name]
        return made.reshape(*made.shape[:2], config.groups, -1, size)

    q, k, v = _rotate(heads("queries")), _rotate(heads("keys")), heads("values")
    assert q.shape[3] == shared
    scores = jnp.einsum("bqgsd,bkgxd->bgsqk", q, k).astype(jnp.float32) / size**0.5
    seen = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), -1).astype(x.dtype)
    return jnp.einsum("bgsqk,bkgxd->bqgsd", weights, v).reshape(x.shape)


def _rotate(x: jax.Array) -> jax.Array:
    length, half = x.shape[1], x.shape[-1] // 2
    rates = 1 / 500000 ** (jnp.arange(half) / half)
    angles = (jnp.arange(length)[:, None] * rates)[:, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    left, right = jnp.split(x.astype(jnp.float32), 2, -1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], -1)
    return turned.astype(x.dtype)


def _rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt((x32**2).mean(-1, keepdims=True) + 1e-5)
    return (x32 * inverse).astype(x.dtype) * scale
