"""`jax.checkpoint` around one layer of a model."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name


LAYER_INPUT = "layer_input"
"""What the input of a rematerialised layer is called, for policies that go by name."""


def checkpointed(
    layer: Callable[..., jax.Array], policy: Callable[..., Any] | None
) -> Callable[..., jax.Array]:
    """A layer under a policy of `jax.checkpoint`, its input named.

    **Arguments:**

    - `layer`: `layer(params, x, ...)`.
    - `policy`: of `jax.checkpoint_policies`, or `None` for no `jax.checkpoint`.

    **Returns:**

    The layer, to be called as before.
    """
    if policy is None:
        return layer

    def named(params: Any, x: jax.Array, *rest: Any) -> jax.Array:
        return layer(params, checkpoint_name(x, LAYER_INPUT), *rest)

    return jax.checkpoint(named, policy=policy)
