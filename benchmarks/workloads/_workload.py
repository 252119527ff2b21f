"""What a workload is, and how a model and an optimizer make one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from ._optimizers import Optimizer
from ._parameters import abstract, initialise


@dataclasses.dataclass(frozen=True)
class Workload:
    """A step function with the arguments it takes.

    **Arguments:**

    - `name`: what reports call it.
    - `step`: the function to compile.
    - `args`: its arguments as pytrees of `jax.ShapeDtypeStruct`.
    - `make`: makes concrete arguments from a seed, new ones at each call.
    - `donate_argnums`: the arguments of `step` to donate.
    """

    name: str
    step: Callable[..., Any]
    args: tuple[Any, ...]
    make: Callable[[int], tuple[Any, ...]]
    donate_argnums: tuple[int, ...] = (0,)


def training(
    name: str,
    parameters: Any,
    loss: Callable[[Any, Any], jax.Array],
    batch: Callable[[jax.Array], Any],
    optimizer: Optimizer,
) -> Workload:
    """The training step of a model as a workload.

    **Arguments:**

    - `name`: what reports call it.
    - `parameters`: a pytree of [`Parameter`][] leaves.
    - `loss`: `loss(params, batch)`, a scalar.
    - `batch`: makes a batch from a random key.
    - `optimizer`: owns the state, of which `state[0]` is the parameters.
    """

    def make(seed: int) -> tuple[Any, Any]:
        state = optimizer.init(initialise(parameters, seed))
        return state, batch(jax.random.key(seed))

    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        value, grads = jax.value_and_grad(loss)(state[0], batch)
        return optimizer.update(state, grads), value

    args = (
        jax.eval_shape(optimizer.init, abstract(parameters)),
        jax.eval_shape(lambda: batch(jax.random.key(0))),
    )
    return Workload(name, step, args, make)
