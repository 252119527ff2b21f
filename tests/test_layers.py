"""Layers, as far as lines that take turns show them."""

from collections.abc import Sequence

import jax
import numpy as np

from autotm_jax.report.layers import layers_of
from autotm_jax.solve import Tensor
from autotm_jax.trace import Program, Value


def program(lines: Sequence[str]) -> Program:
    """A program of nothing but values, each made by a line."""
    aval = jax.core.ShapedArray((4,), np.dtype("float32"))
    values = tuple(Value(i, aval, 16, None, line) for i, line in enumerate(lines))
    return Program(values, (), (), (), (), (), (), {}, {})


def layers(
    made: Sequence[tuple[str, int, int]], nbytes: Sequence[int] = (16,) * 9
) -> list[int | None]:
    """The layers of values with a line, a first and a last segment each."""
    sizes = zip(made, nbytes, strict=False)
    tensors = [Tensor(i, n, (a, b)) for i, ((_, a, b), n) in enumerate(sizes)]
    found = layers_of(program([line for line, _, _ in made]), tensors)
    return [found.get(i) for i in range(len(made))]


def test_lines_that_take_turns():
    made = [("attention", 0, 90), ("mlp", 1, 88), ("attention", 3, 86), ("mlp", 4, 84)]
    assert layers(made) == [0, 0, 1, 1]


def test_a_line_that_runs_twice_in_a_layer():
    made = [
        *(("attention", k, 99 - k) for k in (1, 5, 9)),
        *(("norm", k, 99 - k) for k in (1, 3, 5, 7, 9, 11)),
    ]
    nbytes = [64, 64, 64, *[1] * 6]
    assert layers(made, nbytes) == [0, 1, 2, 0, 0, 1, 1, 2, 2]


def test_what_comes_before_and_after_belongs_to_none():
    made = [("embedding", 0, 99), *(("layer", k, 99 - k) for k in (4, 6, 8))]
    assert layers([*made, ("loss", 20, 30)]) == [None, 0, 1, 2, None]


def test_on_the_way_back_a_value_belongs_to_what_is_read_there():
    forward = [("layer", k, 60 - k) for k in (0, 2, 4, 6)]
    back = [("gradient", 60, 70), ("gradient", 56, 66), ("other", 57, 61)]
    assert layers([*forward, *back]) == [0, 1, 2, 3, 0, 2, None]


def test_layers_may_differ_in_length():
    made = [
        *(("attention", k, 99 - k) for k in (0, 4, 9, 13)),
        *(("mlp", k, 99 - k) for k in (2, 8, 11, 16)),
    ]
    assert layers(made) == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_program_that_does_not_repeat_itself():
    assert layers([("a", 0, 9), ("b", 1, 8), ("c", 2, 7)]) == [None] * 3
    # Two lines after each other are two series, of which neither is most of it all.
    stages = [("a", 0, 9), ("a", 1, 8), ("b", 2, 7), ("b", 3, 6)]
    assert layers(stages) == [None] * 4
    assert layers([]) == []
