"""Which arguments options select, and committing them."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from autotm_jax.arguments import committed, selected


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


def test_only_what_is_chosen_is_committed():
    given = {"a": np.ones(3), "b": jax.numpy.ones(2)}, jax.numpy.ones(2)
    args, kwargs = committed(given, {"c": given[1], "d": given[1]}, {0, "d"})
    assert args[0]["a"].committed and args[0]["b"].committed
    assert args[1] is given[1] and not args[1].committed
    assert kwargs["d"].committed and kwargs["c"] is given[1]
    assert np.array_equal(args[0]["a"], given[0]["a"])
    again, _ = committed(args, {}, {0})
    assert again[0]["a"] is args[0]["a"]
