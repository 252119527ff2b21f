"""Which arguments options select, and committing them."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from autotm_jax.arguments import Arguments, selected

from .meshes import by_rows, mesh


def step(state: Any, batch: Any, *, mode: str = "") -> Any:
    """A function with parameters of each kind."""
    return state, batch, mode


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, set()),
        ({"donate_argnums": 0}, {0, "state"}),
        ({"donate_argnums": (-1,)}, {1, "batch"}),
        ({"donate_argnums": [0, 1]}, {0, "state", 1, "batch"}),
        ({"donate_argnames": "state"}, {0, "state"}),
        ({"donate_argnames": ["mode"], "donate_argnums": None}, {2, "mode"}),
        ({"static_argnums": 0}, set()),
    ],
)
def test_what_is_selected(options: dict[str, Any], wanted: set[int | str]):
    names = "donate_argnums", "donate_argnames"
    assert selected(step, options, *names, count=2) == wanted


def test_without_a_signature_only_what_was_said_is():
    options = {"donate_argnums": 0, "donate_argnames": "x"}
    assert selected(max, options, "donate_argnums", "donate_argnames", 2) == {0, "x"}
    bound = functools.partial(step, batch=1)
    assert selected(bound, options, "donate_argnums", "donate_argnames", 1) == {
        *(0, "state"),
        "x",
    }


def test_only_what_is_donated_is_committed():
    def step(state: Any, batch: Any, *, more: Any, rest: Any) -> Any:
        return state, batch, more, rest

    options = {"donate_argnums": 0, "donate_argnames": "more"}
    arguments = Arguments(step, options, None)
    ones = jax.numpy.ones(2)
    given = ({"a": np.ones(3), "b": jax.numpy.ones(2)}, ones)
    named = {"more": ones, "rest": ones}
    args, kwargs = arguments.committed(given, named, moves=True)
    assert args[0]["a"].committed and args[0]["b"].committed
    assert args[1] is given[1] and not args[1].committed
    assert kwargs["more"].committed and kwargs["rest"] is ones
    assert np.array_equal(args[0]["a"], given[0]["a"])
    again, _ = arguments.committed(args, kwargs, moves=True)
    assert again[0]["a"] is args[0]["a"]
    assert arguments.committed(given, named, moves=False) == (given, named)


def test_on_a_mesh_what_is_committed_to_nothing_goes_everywhere():
    over = mesh(data=2)
    arguments = Arguments(lambda state, batch: state, {"donate_argnums": 0}, None)
    state = {"count": jax.numpy.zeros(()), "host": np.ones(3), "weak": 1.0}
    batch = by_rows(jax.numpy.ones(4), over, "data")
    wanted = NamedSharding(over, PartitionSpec())
    (placed, same), _ = arguments.committed((state, batch), {}, moves=False)
    assert placed["count"].sharding == placed["host"].sharding == wanted
    assert same is batch and placed["weak"] == 1.0
    (typed, _), _ = arguments.described((state, batch), {})
    for name in ("count", "host"):
        assert jax.typeof(typed[name]) == jax.typeof(placed[name])
    (again, _), _ = arguments.described((placed, batch), {})
    assert again["count"] is placed["count"]
