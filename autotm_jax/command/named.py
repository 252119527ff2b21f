"""Steps that are named on the command line."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
import traceback
from typing import Any


class UsageError(Exception):
    """A sentence for the user of the command."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A step that was named on the command line, with its arguments."""

    step: Any
    args: tuple[Any, ...]
    donate_argnums: tuple[int, ...]


def find_step(name: str) -> Named:
    """The step that `MODULE:NAME` stands for.

    **Arguments:**

    - `name`: of something with `.step` and `.args` (and `.donate_argnums`, if it has
        any), of a pair of a function and its arguments, or of a function without
        arguments that returns one of these.

    **Returns:**

    A `Named`.

    **Raises:**

    - `UsageError`: if it is none of these. What the module itself raises is printed.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise UsageError(f"{name!r} names no step. Give MODULE:NAME.")
    if os.getcwd() not in sys.path:  # as `python -m` does
        sys.path.insert(0, os.getcwd())
    found: Any = _imported(module, name)
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise UsageError(f"{name!r} was not found ({error}).") from error
    if callable(found) and not hasattr(found, "step"):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise UsageError(
                f"{name!r} could not be called without arguments ({error})."
            ) from error
        found = found()
    if hasattr(found, "step") and hasattr(found, "args"):
        donated = tuple(getattr(found, "donate_argnums", ()))
        return Named(found.step, tuple(found.args), donated)
    if isinstance(found, tuple) and len(found) == 2 and callable(found[0]):
        return Named(found[0], tuple(found[1]), ())
    raise UsageError(
        f"{name!r} is a {type(found).__name__}. Name something with .step and .args, "
        "a pair of a function and its arguments, or a function that returns one."
    )


def _imported(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        parents = module.split(".")
        above = {".".join(parents[: n + 1]) for n in range(len(parents))}
        if error.name in above:
            raise UsageError(f"{name!r} was not found ({error}).") from error
        _show(error)
        raise UsageError(f"{module} could not be imported ({error}).") from error
    except Exception as error:  # noqa: BLE001 - a module may raise anything
        _show(error)
        text = f"{type(error).__name__}: {error}"
        raise UsageError(f"{module} could not be imported ({text}).") from error


def _show(error: Exception) -> None:
    # From the module's own lines on.
    trace = error.__traceback__
    while trace is not None and "importlib" in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    traceback.print_exception(error.with_traceback(trace))
