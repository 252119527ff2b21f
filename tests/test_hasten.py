from typing import Any

import jax
import jax.numpy as jnp

from .programs import program_of, run
from .steps import assert_close, chain, chain_arguments


def sgd(x: Any, weights: Any) -> Any:
    """A step whose updates are traced after the whole backward pass."""
    loss, grads = jax.value_and_grad(chain, argnums=1)(x, weights)
    return [w - 0.1 * g for w, g in zip(weights, grads, strict=True)], loss


def test_parameters_are_updated_where_their_gradients_are_made():
    x, weights = chain_arguments(layers=4)
    program = program_of(sgd, x, weights)
    made = {v: s.index for s in program.segments for v in s.body.writes}
    updated = [made[r] for r in program.results[:4]]
    # The last layer's gradient is ready first.
    assert updated == sorted(updated, reverse=True)
    assert len(set(updated)) == 4
    # So no gradient waits for another.
    gradients = [
        v for v in program.touches() if program.values[v].nbytes == 32 * 32 * 4
    ]
    assert not [v for v in gradients if v not in program.returned]


def test_a_donated_parameter_is_not_replaced_before_its_last_use():
    x, weights = chain_arguments(layers=4)
    program = program_of(sgd, x, weights, donate_argnums=1)
    made = {v: s.index for s in program.segments for v in s.body.writes}
    for argument, result in zip(program.arguments[1:], program.results, strict=False):
        reads = [s.index for s in program.segments if argument in s.body.reads]
        assert made[result] == max(reads)


def test_the_values_stay():
    args = chain_arguments(layers=4)
    for options in ({}, {"donate_argnums": 1}):
        program = program_of(sgd, *args, **options)
        found = jax.jit(lambda *a, p=program: run(p, *a))(*args)
        assert_close(found, jax.tree.leaves(jax.jit(sgd)(*args)))


def test_a_norm_of_all_gradients_waits_for_all():
    def clipped(x: Any, weights: Any) -> Any:
        grads = jax.grad(chain, argnums=1)(x, weights)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in grads))
        return [w - g / norm for w, g in zip(weights, grads, strict=True)]

    x, weights = chain_arguments(layers=4)
    program = program_of(clipped, x, weights)
    made = {v: s.index for s in program.segments for v in s.body.writes}
    assert {made[r] for r in program.results} == {len(program.segments) - 1}
    found = jax.jit(lambda *a: run(program, *a))(x, weights)
    assert_close(found, jax.jit(clipped)(x, weights))


def test_nothing_moves_before_a_kernel():
    # In front of the last kernel, program order stays.
    x, weights = chain_arguments(layers=4)
    program = program_of(sgd, x, weights)
    homes = [e.home for e in program.equations]
    tail = max(
        i
        for i, e in enumerate(program.equations)
        if e.eqn.primitive.name == "dot_general"
    )
    assert homes[: tail + 1] == sorted(homes[: tail + 1])
    assert [e.index for e in program.equations] == list(range(len(program.equations)))
