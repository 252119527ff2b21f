"""What a call costs after the first: `autotm.jit` next to `jax.jit`.

`python -m benchmarks.overhead` calls a step with a state of 300 small arrays, donated
and handed on as in training, many times: once by `jax.jit` and once by `autotm.jit`, in
random order. It prints the median time of a call in microseconds, without waiting for
the result, and the median of the paired ratios: for a step that is left as it is, for
one that is planned, and for that one next to a `jax.jit` of the same program, as a CPU
computes during the call, and the planned program is another one.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

import autotm_jax as autotm
from autotm_jax.compile import compiler_options


State = list[jax.Array]
Call = Callable[[State], State]


@dataclasses.dataclass(frozen=True)
class Overhead:
    """Seconds per call, medians; `ratio` is the median of the ratios of the pairs."""

    plain: float
    planned: float
    ratio: float


def step(state: State) -> State:
    """A training step with little to compute and much to hand over."""

    def loss(state: State) -> jax.Array:
        x = state[-1]
        for matrix in state[:8]:
            x = jnp.tanh(x @ matrix)
        return x.sum()

    grads = jax.grad(loss)(state)
    return [x - 1e-3 * g for x, g in zip(state, grads, strict=True)]


def state(arrays: int = 300, size: int = 16) -> State:
    """As many square matrices, of as many rows each."""
    return [jnp.full((size, size), 1 / size, jnp.float32) for _ in range(arrays)]


def measure(
    planned: Call, plain: Call, make: Callable[[], State], calls: int
) -> Overhead:
    """The overhead of one callable over another.

    **Arguments:**

    - `planned`, `plain`: the callables. Each donates its state and returns the next.
    - `make`: makes a state.
    - `calls`: how many pairs are timed.

    **Returns:**

    An `Overhead`.
    """
    times: dict[Call, list[float]] = {planned: [], plain: []}
    order = list(times.items())
    states = {planned: make(), plain: make()}
    draw = random.Random(0)
    for number in range(-20, calls):
        draw.shuffle(order)
        for call, seconds in order:
            start = time.perf_counter()
            states[call] = call(states[call])
            end = time.perf_counter()
            jax.block_until_ready(states[call])
            if number >= 0:
                seconds.append(end - start)
    mine, theirs = times[planned], times[plain]
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    return Overhead(*map(statistics.median, (theirs, mine, ratios)))


def same_program(planned: Any, arrays: int) -> Any:
    """A `jax.jit` of what a planned step runs."""
    traced = planned.trace(state(arrays))
    run = jax.extend.core.jaxpr_as_fun(traced.jaxpr)
    options = compiler_options(jax.default_backend())
    return jax.jit(lambda s: run(*s), donate_argnums=0, compiler_options=options)


def main() -> None:
    """Measures and prints; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead",
        description="Time of a call after the first, autotm.jit next to jax.jit.",
    )
    parser.add_argument("--calls", type=int, default=2000, help="default: 2000")
    parser.add_argument("--arrays", type=int, default=300, help="default: 300")
    options = parser.parse_args()
    device = jax.devices()[0].device_kind
    print(f"{options.arrays} arrays, {options.calls} pairs of calls, on {device}")
    print(f"{'step':<10} {'jax.jit':>9} {'autotm.jit':>11} {'ratio':>6}")
    for name, budget in (("untouched", None), ("planned", "min")):
        ours = autotm.jit(step, budget=budget, donate_argnums=0)
        with warnings.catch_warnings():
            # On a CPU the budget is not kept, which is of no concern here.
            warnings.simplefilter("ignore", autotm.AutoTMWarning)
            ours(state(options.arrays))
        plan = ours.plan(state(options.arrays))
        assert plan.is_untouched == (name == "untouched"), plan
        rivals = {name: jax.jit(step, donate_argnums=0)}
        if not plan.is_untouched:
            rivals["the same"] = same_program(ours, options.arrays)
        for label, rival in rivals.items():
            found = measure(ours, rival, lambda: state(options.arrays), options.calls)
            plain, planned = found.plain * 1e6, found.planned * 1e6
            print(
                f"{label:<10} {plain:>6.1f} us {planned:>8.1f} us {found.ratio:>6.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
