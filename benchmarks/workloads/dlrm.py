"""A recommendation model (DLRM): embedding tables, their interactions, two MLPs.

Rows are looked up by gather and summed over each bag, so the tables' gradients are
dense and built by scatter-add: most of the memory is parameters and their gradients,
not activations.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._optimizers import SGD, Optimizer
from ._parameters import embedding, weight, zeros
from ._workload import Workload, training


@dataclasses.dataclass(frozen=True)
class Config:
    """**Arguments:**

    - `tables`, `rows`, `width`: how many tables, of how many vectors of which size.
    - `bag`: how many rows of a table an example looks up.
    - `dense`: how many dense features an example has.
    - `bottom`, `top`: the hidden layers of the MLPs before and after the interaction.
    - `batch`: examples.
    - `optimizer`: owns the state.
    """

    tables: int = 26
    rows: int = 100_000
    width: int = 64
    bag: int = 4
    dense: int = 13
    bottom: tuple[int, ...] = (512, 256)
    top: tuple[int, ...] = (1024, 1024, 512, 256)
    batch: int = 32768
    optimizer: Optimizer = SGD()


TINY = Config(
    tables=3, rows=50, width=8, bag=2, dense=4, bottom=(16,), top=(16, 8), batch=16
)


def parameters(config: Config) -> dict[str, Any]:
    """Describes the parameters."""
    vectors = config.tables + 1
    pairs = vectors * (vectors - 1) // 2
    return {
        "tables": [embedding(config.rows, config.width)] * config.tables,
        "bottom": _mlp(config.dense, *config.bottom, config.width),
        "top": _mlp(config.width + pairs, *config.top, 1),
    }


def batch(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Random features and clicks."""
    dense_key, sparse_key, labels_key = jax.random.split(key, 3)
    bags = config.batch, config.tables, config.bag
    return {
        "dense": jax.random.normal(dense_key, (config.batch, config.dense)),
        "sparse": jax.random.randint(sparse_key, bags, 0, config.rows),
        "labels": jax.random.bernoulli(labels_key, 0.5, (config.batch,)),
    }


def loss(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """The mean binary cross-entropy of the clicks."""
    dense = jax.nn.relu(_apply_mlp(params["bottom"], batch["dense"]))
    vectors = [dense]
    for index, table in enumerate(params["tables"]):
        vectors.append(table[batch["sparse"][:, index]].sum(1))
    stacked = jnp.stack(vectors, 1)
    products = jnp.einsum("bij,bkj->bik", stacked, stacked)
    above = jnp.triu_indices(len(vectors), 1)
    features = jnp.concatenate([dense, products[:, *above]], -1)
    logits = _apply_mlp(params["top"], features)[:, 0]
    return jnp.mean(jax.nn.softplus(logits) - logits * batch["labels"])


def workload(config: Config, name: str = "dlrm") -> Workload:
    """The training step as a workload."""
    return training(
        name,
        parameters(config),
        loss,
        functools.partial(batch, config),
        config.optimizer,
    )


def _mlp(*widths: int) -> list[dict[str, Any]]:
    return [
        {"kernel": weight(inputs, outputs, gain=2**0.5), "bias": zeros(outputs)}
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True)
    ]


def _apply_mlp(params: Sequence[Any], x: jax.Array) -> jax.Array:
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]
