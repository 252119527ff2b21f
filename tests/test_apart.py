"""One leaf of the state after the other."""

from typing import Any

import jax
import jax.numpy as jnp

from autotm_jax.state import carried_leaves
from autotm_jax.trace import Program, build_program


def program_of(step: Any, *args: Any) -> Program:
    """A step whose first argument is its state."""
    traced = jax.jit(step, donate_argnums=0).trace(*args)
    infos = jax.tree.leaves(traced.args_info, is_leaf=lambda x: hasattr(x, "donated"))
    carried = carried_leaves(traced.args_info, traced.out_info)
    return build_program(traced.jaxpr, [i.donated for i in infos], carried=carried)


def makers(program: Program) -> list[int]:
    """The segments that make what takes the place of the state's leaves."""
    by_value = {v: s.index for s in program.segments for v in s.body.writes}
    return [by_value[result] for result in program.carried.values()]


def state(*sizes: int) -> list[tuple[jax.Array, jax.Array]]:
    return [(jnp.zeros((n, 64)), jnp.zeros((n, 64))) for n in sizes]


def update(pairs: Any, gradient: Any) -> Any:
    """Momentum: the new parameter reads the new moment."""
    out = []
    for parameter, moment in pairs:
        rows = gradient[: len(moment)]
        moment = 0.9 * moment + rows
        out.append((parameter - 0.1 * moment, moment))
    return out


def step(pairs: Any, x: Any) -> Any:
    gradient = x @ x
    return update(pairs, gradient), gradient.sum()


def test_each_leaf_has_a_segment_with_its_moment():
    found = makers(program_of(step, state(64, 64, 64), jnp.zeros((64, 64))))
    assert found[0::2] == found[1::2]
    assert len(set(found)) == 3


def test_small_leaves_share_one():
    found = makers(program_of(step, state(64, 8, 8, 8), jnp.zeros((64, 64))))
    assert len(set(found)) == 2
    assert len({*found[2:]}) == 1


def test_what_is_not_carried_is_left_alone():
    args = state(64, 64), jnp.zeros((64, 64))
    traced = jax.jit(step).trace(*args)
    whole = build_program(traced.jaxpr, [False] * 5)
    parted = program_of(step, *args)
    assert len(parted.segments) == len(whole.segments) + 1
    assert not whole.carried


def test_what_reads_an_update_comes_after_it():
    def following(pairs: Any, x: Any) -> Any:
        new, value = step(pairs, x)
        return new, value, jnp.stack([p for p, _ in new])

    program = program_of(following, state(64, 64), jnp.zeros((64, 64)))
    made = {v: s.index for s in program.segments for v in s.body.writes}
    for segment in program.segments:
        assert all(made.get(v, -1) <= segment.index for v in segment.body.reads)
