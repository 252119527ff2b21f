import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autotm_jax as autotm
from autotm_jax import BudgetError
from autotm_jax.budget import format_bytes, parse_budget, parse_host_budget


UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


@pytest.mark.parametrize(
    ("budget", "parsed"),
    [
        (None, None),
        ("min", "min"),
        (1, 1),
        (6 * 2**30, 6 * 2**30),
        (0.5, 0.5),
        (1.0, 1.0),
        (1e-9, 1e-9),
        ("6GiB", 6 * 2**30),
        ("6 GiB", 6 * 2**30),
        ("  6 gib ", 6 * 2**30),
        ("500 MB", 500 * 10**6),
        ("1.5KiB", 1536),
        (".5 GiB", 2**29),
        ("2.GiB", 2**31),
        ("123", 123),
        ("123B", 123),
        ("1TB", 10**12),
        ("0.25TIB", 2**38),
    ],
)
def test_accepted(budget: Any, parsed: Any):
    found = parse_budget(budget)
    assert found == parsed
    assert type(found) is type(parsed)


@given(st.integers(1, 4000), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_every_unit(count: int, unit: str, space: str):
    assert parse_budget(f"{count}{space}{unit}") == count * UNITS[unit]
    assert parse_budget(f"{count}{space}{unit.lower()}") == count * UNITS[unit]


@given(st.integers(1, 2**60))
def test_bytes_are_taken_as_they_are(nbytes: int):
    assert parse_budget(nbytes) == nbytes


@given(st.floats(min_value=0, max_value=1, exclude_min=True))
def test_fractions_are_taken_as_they_are(part: float):
    assert parse_budget(part) == part


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint64])
def test_bytes_and_fractions_may_be_numbers_of_numpy(kind: type):
    assert parse_budget(kind(2**20)) == parse_host_budget(kind(2**20)) == 2**20
    assert type(parse_budget(kind(2**20))) is int
    assert parse_budget(np.float32(0.5)) == parse_budget(np.float64(0.5)) == 0.5


ADVICE = (
    'Give bytes as an int, a size as "6GiB" or "500 MB", a fraction of what plain '
    'jax.jit needs as a float in (0, 1], "min", or None for what the device has.'
)
NO_SIZE = "budget is {!r}, which is not a size."
NO_FRACTION = "budget is {!r}: a float is a fraction and lies in (0, 1]."
NOT_POSITIVE = "budget is {!r}: it must be a byte or more."


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("6 bananas", NO_SIZE),
        ("", NO_SIZE),
        (" ", NO_SIZE),
        ("-6GiB", NO_SIZE),
        ("6,5GiB", NO_SIZE),
        ("1e9", NO_SIZE),
        ("GiB", NO_SIZE),
        ("six GiB", NO_SIZE),
        ("6GiB 1", NO_SIZE),
        ("Min", NO_SIZE),
        ("max", NO_SIZE),
        ("nan", NO_SIZE),
        ("50%", NO_SIZE),
        ("0", NOT_POSITIVE),
        ("0GiB", NOT_POSITIVE),
        ("0.2B", NOT_POSITIVE),
        ("0.6", NOT_POSITIVE),
        (np.int64(0), NOT_POSITIVE),
        (np.float32(1.5), NO_FRACTION),
        (0, NOT_POSITIVE),
        (-1, NOT_POSITIVE),
        (-(2**40), NOT_POSITIVE),
        (0.0, NO_FRACTION),
        (-0.5, NO_FRACTION),
        (1.5, NO_FRACTION),
        (math.nan, NO_FRACTION),
        (math.inf, NO_FRACTION),
        (True, "budget is {!r}, a bool."),
        (False, "budget is {!r}, a bool."),
        ([6], "budget is {!r}, a list."),
        ((6, "GiB"), "budget is {!r}, a tuple."),
        (b"6GiB", "budget is {!r}, a bytes."),
        (6j, "budget is {!r}, a complex."),
        (Fraction(1, 2), "budget is {!r}, a Fraction."),
        ({}, "budget is {!r}, a dict."),
    ],
)
def test_rejected(budget: Any, said: str):
    text = f"{said.format(budget)} {ADVICE}"
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        parse_budget(budget)
    # It is said where it is written, not at the first call.
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        autotm.jit(budget=budget)


HOST_ADVICE = (
    'Give bytes as an int, a size as "64GiB" or "500 MB", 0 to move nothing, or None '
    "for what the host has."
)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("min", "host_budget is {!r}, which is not a size."),
        ("a lot", "host_budget is {!r}, which is not a size."),
        ("-1", "host_budget is {!r}, which is not a size."),
        (-1, "host_budget is {!r}: it must not be less than zero."),
        (0.5, "host_budget is {!r}, a float."),
        (2.5, "host_budget is {!r}, a float."),
        (True, "host_budget is {!r}, a bool."),
        ([6], "host_budget is {!r}, a list."),
    ],
)
def test_host_budgets_that_are_rejected(budget: Any, said: str):
    text = f"{said.format(budget)} {HOST_ADVICE}"
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        autotm.jit(host_budget=budget)


@pytest.mark.parametrize(
    ("budget", "nbytes"),
    [(None, None), (0, 0), ("0", 0), ("64GiB", 2**36), (10**9, 10**9)],
)
def test_host_budgets(budget: int | str | None, nbytes: int | None):
    assert parse_host_budget(budget) == nbytes


def test_a_host_budget_of_zero_is_one():
    assert callable(autotm.jit(lambda x: x, host_budget=0))


def test_a_budget_error_is_a_value_error():
    assert issubclass(BudgetError, ValueError)
    assert issubclass(BudgetError, autotm.AutoTMError)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (12, "12 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (512 * 2**20, "512.0 MiB"),
        (6 * 2**30, "6.00 GiB"),
        (5000 * 2**30, "5,000.00 GiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_format_bytes(nbytes: int, text: str):
    assert format_bytes(nbytes) == text


@given(st.integers(1, 2**50))
def test_formatted_bytes_read_back(nbytes: int):
    back = parse_budget(format_bytes(nbytes).replace(",", ""))
    assert isinstance(back, int)
    assert back == pytest.approx(nbytes, rel=0.05)


def test_a_solver_that_is_none_is_refused():
    text = (
        "solver is 60, of type int. Give autotm.SolverOptions(time_limit=60), or leave "
        "it out."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        autotm.jit(solver=60)
