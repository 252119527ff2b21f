"""Reading a memory budget."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import numpy as np

from .errors import BudgetError


Budget = int | float | str | None

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*")

_ADVICE = (
    'Give bytes as an int, a size as "6GiB" or "500 MB", a fraction of what plain '
    'jax.jit needs as a float in (0, 1], "min", or None for what the device has.'
)
_HOST_ADVICE = (
    'Give bytes as an int, a size as "64GiB" or "500 MB", 0 to move nothing, or None '
    "for what the host has."
)


def parse_budget(budget: Budget) -> Budget | Literal["min"]:
    """Checks a budget of device memory and brings it into one of four forms.

    **Arguments:**

    - `budget`: what the user wrote.

    **Returns:**

    Bytes as an `int`, a fraction as a `float` in (0, 1], `"min"`, or `None`.

    **Raises:**

    - `BudgetError`: if it is none of these.
    """
    if budget is None or budget == "min":
        return budget
    if isinstance(budget, float | np.floating):
        fraction = float(budget)
        if math.isnan(fraction) or not 0 < fraction <= 1:
            raise BudgetError(
                f"budget is {budget!r}: a float is a fraction and lies in (0, 1]. "
                f"{_ADVICE}"
            )
        return fraction
    nbytes = _size(budget, "budget", _ADVICE)
    if nbytes <= 0:
        raise BudgetError(f"budget is {budget!r}: it must be a byte or more. {_ADVICE}")
    return nbytes


def parse_host_budget(budget: int | str | None) -> int | None:
    """Checks a budget of host memory.

    **Arguments:**

    - `budget`: what the user wrote.

    **Returns:**

    Bytes, none to move nothing; or `None` for what the host has.

    **Raises:**

    - `BudgetError`: if it is none of these.
    """
    if budget is None:
        return None
    nbytes = _size(budget, "host_budget", _HOST_ADVICE)
    if nbytes < 0:
        raise BudgetError(
            f"host_budget is {budget!r}: it must not be less than zero. {_HOST_ADVICE}"
        )
    return nbytes


def _size(given: Any, name: str, advice: str) -> int:
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return int(given)
    if not isinstance(given, str):
        kind = type(given).__name__
        raise BudgetError(f"{name} is {given!r}, a {kind}. {advice}")
    match = _TEXT.fullmatch(given)
    unit = match and _UNITS.get(match.group(2).lower())
    if not match or unit is None:
        raise BudgetError(f"{name} is {given!r}, which is not a size. {advice}")
    return int(float(match.group(1)) * unit)


def format_bytes(nbytes: float) -> str:
    """Bytes for people: `"6.00 GiB"`, `"512.0 MiB"`, `"12 B"`."""
    sign = "-" if nbytes < 0 else ""
    size = abs(nbytes)
    if size >= 2**30:
        return f"{sign}{size / 2**30:,.2f} GiB"
    if size >= 2**20:
        return f"{sign}{size / 2**20:,.1f} MiB"
    if size >= 2**10:
        return f"{sign}{size / 2**10:,.1f} KiB"
    return f"{sign}{size:.0f} B"
