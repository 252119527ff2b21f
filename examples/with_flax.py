"""Flax NNX: `python -m examples.with_flax`.

`nnx.split` makes a pytree of the model and its optimizer, which is the state of the
step; inside of it `nnx.merge` makes objects of them again.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from . import corpus, training


WIDTH, HEADS, LAYERS = 128, 4, 3


class Block(nnx.Module):
    """A layer of a transformer."""

    def __init__(self, rngs: nnx.Rngs):
        self.before = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS, WIDTH, decode=False, use_bias=False, rngs=rngs
        )
        self.between = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.widen = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.narrow = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        mask = nnx.make_causal_mask(x[..., 0])
        x = x + self.attention(self.before(x), mask=mask)
        return x + self.narrow(nnx.gelu(self.widen(self.between(x))))


class Decoder(nnx.Module):
    """A language model of characters."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(corpus.VOCABULARY, WIDTH, rngs=rngs)
        self.place = nnx.Embed(training.LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, text: jax.Array) -> jax.Array:
        x = self.embed(text) + self.place(jnp.arange(text.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.embed.attend(self.norm(x))


def _objects() -> tuple[Decoder, nnx.Optimizer[Decoder]]:
    model = Decoder(nnx.Rngs(0))
    return model, nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)


GRAPH = nnx.split(nnx.eval_shape(_objects))[0]
"""What the model is beside its arrays."""


def init() -> Any:
    """The arrays of the model, and of its optimizer."""
    return nnx.split(_objects())[1]


def loss_of(model: Decoder, text: jax.Array) -> jax.Array:
    """The mean cross-entropy of the next character."""
    logits = model(text[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, text[:, 1:])
    return losses.mean()


def train_step(state: Any, text: jax.Array) -> tuple[Any, jax.Array]:
    """From a state and a batch to the next state and the loss."""
    model, optimizer = nnx.merge(GRAPH, state)
    loss, gradient = nnx.value_and_grad(loss_of)(model, text)
    optimizer.update(model, gradient)
    return nnx.split((model, optimizer))[1], loss


if __name__ == "__main__":
    training.compare(train_step, init)
