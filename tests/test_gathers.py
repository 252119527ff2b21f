"""What a mesh sends, written down as equations and put in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from autotm_jax.profile.exchange import exchanged_bytes
from autotm_jax.trace import Flat, Kind, build_program

from .meshes import mesh


P = PartitionSpec


def program_of(fun: Callable[..., Any], specs: dict[str, Any], *shapes: Any) -> Any:
    """The program of a flat function, its values sharded by what makes them.

    `specs` has those of arguments by number ("0") and of results by primitive.
    """
    over = mesh(data=4)
    avals = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    closed = jax.make_jaxpr(fun)(*avals)

    def divide(flat: Flat) -> dict[int, NamedSharding]:
        named = {v: str(n) for n, v in enumerate(flat.arguments)}
        named |= {v: e.eqn.primitive.name for e in flat.equations for v in e.outputs}
        known = ((v, specs[n]) for v, n in named.items() if n in specs)
        return {v: NamedSharding(over, spec) for v, spec in known}

    return build_program(closed, [False] * len(avals), divide=divide)


def sent(program: Any) -> dict[str, float]:
    found = [(e, exchanged_bytes(program, e)) for e in program.equations]
    return {e.eqn.primitive.name: nbytes for e, nbytes in found if nbytes}


def test_a_weight_that_is_spread_is_gathered_once_for_all_that_read_it():
    def two(w: Any, x: Any, y: Any) -> Any:
        return x @ w, y @ w

    rows = P("data")
    specs = {"0": rows, "1": rows, "2": rows, "dot_general": rows}
    program = program_of(two, specs, (64, 64), (256, 64), (256, 64))
    gathers = [
        e for e in program.equations if e.eqn.primitive.name == "sharding_constraint"
    ]
    assert len(gathers) == 1 and gathers[0].kind is Kind.MEMORY
    (whole,) = gathers[0].outputs
    assert program.values[whole].nbytes == 64 * 64 * 4
    dots = [e for e in program.equations if e.eqn.primitive.name == "dot_general"]
    assert all(whole in e.operands for e in dots) and len(dots) == 2
    # Each device has had a quarter of it.
    assert sent(program) == {"sharding_constraint": 0.75 * 64 * 64 * 4}
    # It may be gathered again.
    assert whole in program.recomputations


def test_what_fits_is_not_gathered():
    specs = {"0": P(None, None), "1": P("data"), "dot_general": P("data")}
    program = program_of(lambda w, x: x @ w, specs, (64, 64), (256, 64))
    assert not sent(program)


@pytest.mark.parametrize(
    ("result", "share"),
    [(P("data"), 3.0), (P(), 2 * 0.75 * 4)],
    ids=["reduce-scatter", "all-reduce"],
)
def test_a_contraction_of_what_is_divided_leaves_partial_sums(
    result: PartitionSpec, share: float
):
    rows, columns = P("data"), P(None, "data")
    specs = {"0": rows, "1": rows, "transpose": columns, "dot_general": result}
    program = program_of(lambda x, y: x.T @ y, specs, (256, 64), (256, 64))
    part = 64 * 64 * 4 / 4
    assert sent(program) == {"dot_general": share * part}


def sums(x: Any, y: Any, z: Any, w: Any) -> Any:
    first = jnp.einsum("bi,bj->ij", x, y)
    between = jnp.tanh(z) @ w
    second = jnp.einsum("bi,bj->ij", z, y)
    return first + second, between


def test_partial_sums_that_are_added_are_in_one_segment():
    rows = P("data")
    specs = {"0": rows, "1": rows, "2": rows, "3": P(), "dot_general": P()}
    shapes = (256, 64), (256, 64), (256, 64), (64, 64)
    program = program_of(sums, specs, *shapes)

    def homes(program: Any) -> list[int]:
        return [
            e.home
            for e in program.equations
            if e.eqn.primitive.name == "dot_general"
            and e.eqn.outvars[0].aval.size == 64 * 64
        ]

    first, second = homes(program)
    assert first == second
    # Outside of a mesh there is nothing to be exchanged.
    first, second = homes(program_of(sums, {}, *shapes))
    assert first < second


def test_partial_sums_that_others_read_stay_where_they_are():
    def read_twice(x: Any, y: Any, z: Any) -> Any:
        first = jnp.einsum("bi,bj->ij", x, y)
        second = jnp.einsum("bi,bj->ij", z, y)
        return first + second, first

    rows = P("data")
    specs = {"0": rows, "1": rows, "2": rows, "dot_general": P()}
    program = program_of(read_twice, specs, (256, 64), (256, 64), (256, 64))
    dots = [e for e in program.equations if e.eqn.primitive.name == "dot_general"]
    assert dots[0].home < dots[1].home
