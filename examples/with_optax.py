"""optax, plain pytrees, and a checkpoint by orbax: `python -m examples.with_optax`.

The parameters are a dictionary. Most of the state lives in host memory between steps;
halfway it is written to disk from there, and read back.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp

from . import corpus, training


LAYERS, WIDTH = 4, 128

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def init() -> dict[str, Any]:
    """The parameters, and the state of the optimizer."""
    embed, *keys = jax.random.split(jax.random.key(0), 1 + LAYERS)
    params = {
        "embed": 0.1 * jax.random.normal(embed, (corpus.VOCABULARY, WIDTH)),
        "layers": [_layer(key) for key in keys],
    }
    return {"params": params, "optimizer": OPTIMIZER.init(params)}


def _layer(key: jax.Array) -> dict[str, jax.Array]:
    mix, widen, narrow = jax.random.split(key, 3)
    length = training.LENGTH
    return {
        "mix": jax.random.normal(mix, (length, length)) / length,
        "widen": jax.random.normal(widen, (WIDTH, 4 * WIDTH)) / WIDTH**0.5,
        "narrow": jax.random.normal(narrow, (4 * WIDTH, WIDTH)) / (8 * WIDTH) ** 0.5,
    }


def loss_of(params: Any, text: jax.Array) -> jax.Array:
    """The mean cross-entropy of the next character."""
    x = params["embed"][text[:, :-1]]
    for layer in params["layers"]:
        x = x + jnp.einsum("ij,bjd->bid", jnp.tril(layer["mix"]), x)
        x = x + jax.nn.gelu(x @ layer["widen"]) @ layer["narrow"]
    logits = x @ params["embed"].T
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, text[:, 1:])
    return losses.mean()


def train_step(state: Any, text: jax.Array) -> tuple[Any, jax.Array]:
    """From a state and a batch to the next state and the loss."""
    params, optimizer = state["params"], state["optimizer"]
    loss, gradient = jax.value_and_grad(loss_of)(params, text)
    updates, optimizer = OPTIMIZER.update(gradient, optimizer, params)
    return {
        "params": optax.apply_updates(params, updates),
        "optimizer": optimizer,
    }, loss


def through(directory: Path, state: Any) -> Any:
    """Writes a state to a new directory, and reads it."""
    like = jax.eval_shape(init)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory, state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(directory, like)


def main() -> None:
    """Trains for a hundred steps, with a checkpoint in the middle."""
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = Path(directory) / "state"
        training.compare(
            train_step, init, halfway=lambda state: through(checkpoint, state)
        )


if __name__ == "__main__":
    main()
