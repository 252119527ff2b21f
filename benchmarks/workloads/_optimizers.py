"""Optimizers that own their state: a tuple whose first item is the parameters."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp


class Optimizer(Protocol):
    """Makes a state from parameters and advances it by one step."""

    def init(self, params: Any) -> tuple[Any, ...]: ...

    def update(self, state: tuple[Any, ...], grads: Any) -> tuple[Any, ...]: ...


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent. The state is `(params,)`."""

    learning_rate: float = 0.1

    def init(self, params: Any) -> tuple[Any]:
        return (params,)

    def update(self, state: tuple[Any, ...], grads: Any) -> tuple[Any]:
        (params,) = state
        return (jax.tree.map(lambda p, g: p - self.learning_rate * g, params, grads),)


@dataclasses.dataclass(frozen=True)
class Momentum:
    """Gradient descent with heavy-ball momentum. The state is `(params, velocity)`."""

    learning_rate: float = 0.1
    decay: float = 0.9

    def init(self, params: Any) -> tuple[Any, Any]:
        return params, jax.tree.map(jnp.zeros_like, params)

    def update(self, state: tuple[Any, ...], grads: Any) -> tuple[Any, Any]:
        params, velocity = state
        velocity = jax.tree.map(lambda v, g: self.decay * v + g, velocity, grads)
        params = jax.tree.map(lambda p, v: p - self.learning_rate * v, params, velocity)
        return params, velocity


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam with float32 moments and no bias correction.

    The state is `(params, first, second)`.
    """

    learning_rate: float = 1e-3
    decay1: float = 0.9
    decay2: float = 0.99
    epsilon: float = 1e-8

    def init(self, params: Any) -> tuple[Any, Any, Any]:
        def zeros() -> Any:
            return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)

        return params, zeros(), zeros()

    def update(self, state: tuple[Any, ...], grads: Any) -> tuple[Any, Any, Any]:
        params, first, second = state
        grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)

        def average(old: Any, new: Any, decay: float) -> Any:
            return jax.tree.map(lambda o, n: decay * o + (1 - decay) * n, old, new)

        def move(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            step = self.learning_rate * m / (jnp.sqrt(v) + self.epsilon)
            return (p - step).astype(p.dtype)

        first = average(first, grads, self.decay1)
        second = average(second, jax.tree.map(jnp.square, grads), self.decay2)
        return jax.tree.map(move, params, first, second), first, second
