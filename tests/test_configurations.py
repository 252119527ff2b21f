from typing import Any

import jax.numpy as jnp
import pytest

from autotm_jax.profile.configurations import ON_DEVICE, Configuration, configurations
from autotm_jax.trace import Program

from .programs import program_of
from .steps import chain, chain_arguments


def middle() -> tuple[Program, Any]:
    """A segment that reads and writes a tensor, with its program."""
    program = program_of(chain, *chain_arguments(layers=4))
    return program, program.segments[1].body


def test_every_combination_of_what_moves():
    program, body = middle()
    moved = set(body.reads + body.writes) - program.resident - program.returned
    found = configurations(program, body, 1000)
    assert len(found.kept) == 2 ** len(moved) == len(set(found.kept))
    assert found.pruned == 0
    assert found.fixed == len(body.reads) + len(body.writes) - len(moved)
    assert found.kept[0] == ON_DEVICE
    copies = [len(c.reads) + len(c.writes) for c in found.kept]
    assert copies == sorted(copies)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_cap_is_counted(most: int):
    program, body = middle()
    every = configurations(program, body, 1000)
    found = configurations(program, body, most)
    assert found.kept == every.kept[:most]
    assert found.pruned == len(every.kept) - most


def test_arguments_results_and_small_values_stay():
    def step(x: Any, y: Any) -> Any:
        return jnp.sin(x @ y) @ y

    program = program_of(step, jnp.ones((32, 32)), jnp.ones((32, 32)))
    first, last = program.segments[0].body, program.segments[-1].body
    for body in (first, last):
        for c in configurations(program, body, 100).kept:
            moved = [body.reads[i] for i in c.reads] + [
                body.writes[i] for i in c.writes
            ]
            assert not set(moved) & (program.resident | program.returned)


def test_names():
    assert str(ON_DEVICE) == "all on the device"
    assert str(Configuration((0, 2), ())) == "operand 0, operand 2 on the host"
    assert str(Configuration((1,), (0,))) == "operand 1 and result 0 on the host"
