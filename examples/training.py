"""What the examples have in common: a loop, and a comparison with `jax.jit`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import autotm_jax as autotm

from . import corpus


BATCH, LENGTH = 16, 64


def train(
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    steps: int,
    halfway: Callable[[Any], Any] = lambda state: state,
) -> tuple[Any, list[float]]:
    """Trains on the sources of Python's standard library.

    **Arguments:**

    - `step`: from a state and a batch, int32 of `(BATCH, LENGTH + 1)`, to the next
        state and the loss.
    - `state`: the first state, which is donated.
    - `steps`: how many.
    - `halfway`: what the state goes through once.

    **Returns:**

    The last state, and the losses.
    """
    text = corpus.batches(corpus.load(), BATCH, LENGTH + 1, seed=0)
    losses = []
    for number in range(steps):
        if number == steps // 2:
            state = halfway(state)
        state, loss = step(state, next(text))
        losses.append(float(loss))
    return state, losses


def compare(
    train_step: Callable[[Any, Any], tuple[Any, Any]],
    init: Callable[[], Any],
    steps: int = 100,
    halfway: Callable[[Any], Any] = lambda state: state,
) -> tuple[list[float], list[float]]:
    """Trains twice, and prints the losses side by side.

    **Arguments:**

    - `train_step`, `init`: the step, and what makes its first state.
    - `steps`, `halfway`: of the second run, as in `train`.

    **Returns:**

    The losses of `jax.jit`, and those of `autotm.jit` at its least memory.
    """
    _, plain = train(jax.jit(train_step, donate_argnums=0), init(), steps)
    step = autotm.jit(train_step, budget="min", donate_argnums=0)
    with warnings.catch_warnings():
        # On a CPU, host memory is device memory, and so no budget is kept.
        warnings.simplefilter("ignore", autotm.AutoTMWarning)
        state, ours = train(step, init(), steps, halfway)
    for number in range(0, steps, max(1, steps // 10)):
        print(f"step {number:3}: {plain[number]:.6f} jax.jit, {ours[number]:.6f} ours")
    leaves = jax.tree.leaves(state)
    there = sum(leaf.sharding.memory_kind == "pinned_host" for leaf in leaves)
    print(f"{there} of {len(leaves)} leaves of the state are in host memory.")
    np.testing.assert_allclose(ours, plain, rtol=1e-4)
    return plain, ours
