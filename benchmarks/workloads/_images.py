"""The batches of the models that classify images."""

from typing import Any

import jax
import jax.numpy as jnp


def labelled_images(
    key: jax.Array, count: int, size: int, classes: int, dtype: Any = jnp.float32
) -> dict[str, jax.Array]:
    """So many random square images of `size` pixels a side, and a class for each."""
    images_key, labels_key = jax.random.split(key)
    return {
        "images": jax.random.normal(images_key, (count, size, size, 3), dtype),
        "labels": jax.random.randint(labels_key, (count,), 0, classes),
    }
