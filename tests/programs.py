"""Small steps as programs, and random ones."""

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from autotm_jax.trace import Program, build_program, evaluate


def program_of(
    step: Callable[..., Any], *args: Any, loops: bool = False, **options: Any
) -> Program:
    """A step as a program, with or without its loops written out.

    Further options are those of `jax.jit`.
    """
    traced = jax.jit(step, **options).trace(*args)
    leaves = jax.tree.leaves(traced.args_info, is_leaf=lambda a: hasattr(a, "donated"))
    return build_program(traced.jaxpr, [leaf.donated for leaf in leaves], loops=loops)


def run(program: Program, *args: Any) -> list[Any]:
    """Evaluates the segments one after the other, as a reader of them would."""
    there: dict[int, Any] = dict(program.constants)
    there.update(zip(program.arguments, jax.tree.leaves(args), strict=True))
    for segment in program.segments:
        there.update(evaluate(program, segment.body, there.__getitem__))
    return [there[r] if isinstance(r, int) else r.val for r in program.results]


def random_step(seed: int) -> Callable[[Any, Any], Any]:
    """A function of two 6x6 arrays made of a few operations, with a gradient."""
    draw = random.Random(seed)
    table = jnp.arange(36.0).reshape(6, 6) / 36
    binary: list[Callable[[Any, Any], Any]] = [
        lambda a, b: a + b,
        lambda a, b: a * b,
        lambda a, b: a @ b,
        lambda a, b: a @ b.T,
        lambda a, b: jnp.where(a > 0, a, b),
        lambda a, b: jnp.maximum(a, b),
        lambda a, b: jnp.concatenate([a, b])[3:9],
    ]
    unary: list[Callable[[Any], Any]] = [
        jnp.tanh,
        jax.nn.relu,
        jax.nn.softmax,
        lambda a: a - a.mean(0),
        lambda a: a @ table,
        lambda a: jax.jit(jnp.sin)(a),
        lambda a: jnp.cumsum(a, axis=1) / 6,
        lambda a: a[::-1].T,
        lambda a: a.at[2].set(1.0),
        lambda a: jax.lax.scan(lambda c, r: (c + r, c * r), a[0], a)[1],
        jax.checkpoint(lambda a: jnp.tanh(a @ a)),
        lambda a: jax.lax.cond(a[0, 0] > 0, jnp.sin, jnp.cos, a),
    ]
    plan = []
    for step in range(draw.randint(3, 9)):
        if draw.random() < 0.5:
            plan.append((draw.choice(unary), draw.randrange(step + 2)))
        else:
            pair = (draw.randrange(step + 2), draw.randrange(step + 2))
            plan.append((draw.choice(binary), *pair))
    kept = draw.randrange(2, len(plan) + 2)

    def forward(x: Any, y: Any) -> Any:
        values = [x, y]
        for operation, *operands in plan:
            values.append(operation(*(values[i] for i in operands)))
        return jnp.mean(values[-1] ** 2), values[kept]

    if draw.random() < 0.7:
        return jax.value_and_grad(forward, argnums=(0, 1), has_aux=True)
    return forward
