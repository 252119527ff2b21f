from typing import Any

import jax
import jax.numpy as jnp

from autotm_jax.trace import Program

from .programs import program_of


WIDE = jnp.ones((64, 64))
LINE = jnp.ones((64,))


def crossing(program: Program) -> list[str]:
    """Shapes and producers of the values that have a buffer between segments."""
    out = []
    for value in program.touches():
        producer = program.values[value].producer
        assert producer is not None
        name = program.equations[producer].eqn.primitive.name
        out.append(f"{name}{program.values[value].aval.shape}")
    return sorted(out)


def test_fused_work_is_computed_where_it_is_read():
    def step(x: Any) -> Any:
        y = x @ x
        return ((y @ x) @ x) + jnp.sin(y) * jnp.cos(y)

    # The sine and the cosine are computed at the end, from y.
    found = crossing(program_of(step, WIDE))
    assert "sin(64, 64)" not in found
    assert "cos(64, 64)" not in found
    program = program_of(step, WIDE)
    last = program.segments[-1]
    names = [program.equations[i].eqn.primitive.name for i in last.body.equations]
    assert {"sin", "cos"} <= set(names)


def test_what_a_kernel_reads_is_made_before_it():
    def step(x: Any) -> Any:
        y = jnp.sin(x @ x)
        return (y @ x) @ y

    assert "sin(64, 64)" in crossing(program_of(step, WIDE))


def test_a_value_smaller_than_its_roots_is_kept():
    def step(x: Any) -> Any:
        a, b = x @ x, x @ (x + 1)
        both = a + b  # half of its roots
        c = jnp.tanh(x @ x.T) @ x
        return c @ both + both

    assert "add(64, 64)" in crossing(program_of(step, WIDE))


def test_statistics_are_kept_and_what_they_normalise_is_not():
    def step(x: Any) -> Any:
        y = x @ x
        z = (y - y.mean(0)) / (1 + y.var(0))
        return jnp.sum((z @ x) @ x) + jnp.sum(z * 3)

    found = crossing(program_of(step, WIDE))
    assert "dot_general(64, 64)" in found
    assert any(name.endswith("(64,)") for name in found) or len(found) > 2


def test_arguments_are_never_kept_twice():
    program = program_of(lambda x, w: ((x * 2) @ w) @ (x.T + 1), WIDE, WIDE)
    for value in program.touches():
        assert value not in program.resident


def test_results_are_materialised():
    def step(x: Any) -> Any:
        y = jnp.sin(x @ x)
        return y, y @ x

    program = program_of(step, WIDE)
    (first, second) = program.results
    written = {v for s in program.segments for v in s.body.writes}
    assert {first, second} <= written


def test_a_long_chain_is_cut():
    def step(x: Any) -> Any:
        y = x @ x
        for i in range(300):
            y = y * 2 if i % 2 else y / 2
        return (y @ x) @ y

    program = program_of(step, WIDE)
    assert max(len(s.body.equations) for s in program.segments) <= 310
    runs = sum(len(s.body.equations) for s in program.segments)
    assert runs < 2 * 303  # the chain is not run once for each reader


def test_parts_of_a_split_share_its_root():
    def step(x: Any, w: Any) -> Any:
        q, k, v = jnp.split(x @ w, 3, axis=1)
        return jax.nn.softmax(q @ k.T) @ v

    program = program_of(step, WIDE, jnp.ones((64, 192)))
    found = crossing(program)
    assert "dot_general(64, 192)" in found
    assert not any(name.startswith(("split", "slice")) for name in found)


def test_a_mask_is_kept_instead_of_its_random_bits():
    def loss(w: Any, x: Any, key: Any) -> Any:
        y = x @ w
        keep = jax.random.bernoulli(key, 0.5, y.shape)
        return jnp.sum(jnp.where(keep, y, 0) @ w)

    program = program_of(jax.grad(loss), WIDE, WIDE, jax.random.key(0))
    wide = [
        program.values[v].aval.dtype.name
        for v in program.touches()
        if program.values[v].aval.shape == (64, 64)
    ]
    assert "uint32" not in wide
