"""Equinox: `python -m examples.with_equinox`.

`eqx.partition` parts the arrays of a model, which are the state of the step with those
of the optimizer, from all else; inside of the step `eqx.combine` joins them again.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from . import corpus, training


WIDTH, HEADS, LAYERS = 128, 4, 3

OPTIMIZER = optax.adamw(1e-3)


class Block(eqx.Module):
    """A layer of a transformer, for one sequence."""

    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP
    before: eqx.nn.LayerNorm
    between: eqx.nn.LayerNorm

    def __init__(self, key: jax.Array):
        attention, mlp = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=attention)
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 4 * WIDTH, 1, jax.nn.gelu, key=mlp)
        self.before, self.between = eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)

    def __call__(self, x: jax.Array) -> jax.Array:
        seen = jax.vmap(self.before)(x)
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(seen, seen, seen, mask)
        return x + jax.vmap(self.mlp)(jax.vmap(self.between)(x))


class Decoder(eqx.Module):
    """A language model of characters, for one sequence."""

    embed: eqx.nn.Embedding
    place: jax.Array
    blocks: list[Block]
    norm: eqx.nn.LayerNorm

    def __init__(self, key: jax.Array):
        embed, place, *keys = jax.random.split(key, 2 + LAYERS)
        weight = 0.1 * jax.random.normal(embed, (corpus.VOCABULARY, WIDTH))
        self.embed = eqx.nn.Embedding(weight=weight)
        self.place = 0.1 * jax.random.normal(place, (training.LENGTH, WIDTH))
        self.blocks = [Block(key) for key in keys]
        self.norm = eqx.nn.LayerNorm(WIDTH)

    def __call__(self, text: jax.Array) -> jax.Array:
        x = jax.vmap(self.embed)(text) + self.place
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x) @ self.embed.weight.T


def _parts() -> tuple[Any, Any]:
    return eqx.partition(Decoder(jax.random.key(0)), eqx.is_array)


STATIC = _parts()[1]
"""What the model is beside its arrays."""


def init() -> Any:
    """The arrays of the model, and the state of the optimizer."""
    arrays, _ = _parts()
    return arrays, OPTIMIZER.init(arrays)


def loss_of(arrays: Any, text: jax.Array) -> jax.Array:
    """The mean cross-entropy of the next character."""
    logits = jax.vmap(eqx.combine(arrays, STATIC))(text[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, text[:, 1:])
    return losses.mean()


def train_step(state: Any, text: jax.Array) -> tuple[Any, jax.Array]:
    """From a state and a batch to the next state and the loss."""
    arrays, optimizer = state
    loss, gradient = jax.value_and_grad(loss_of)(arrays, text)
    updates, optimizer = OPTIMIZER.update(gradient, optimizer, arrays)
    return (eqx.apply_updates(arrays, updates), optimizer), loss


if __name__ == "__main__":
    training.compare(train_step, init)
