"""Steps that are named on the command line."""

from __future__ import annotations

import contextlib
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

    - `UsageError`: if it is none of these. What the module or the function itself
        raises is printed.
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
            # Some that are built in have no signature: calling them tells.
            with contextlib.suppress(ValueError):
                inspect.signature(found).bind()
        except TypeError as error:
            raise UsageError(
                f"{name!r} could not be called without arguments ({error})."
            ) from error
        try:
            found = found()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it may raise anything
            _show(error)
            raise UsageError(f"{name} could not be called ({_said(error)}).") from error
    if hasattr(found, "step") and hasattr(found, "args"):
        donated = getattr(found, "donate_argnums", ())
        numbers = (donated,) if isinstance(donated, int) else tuple(donated)
        return Named(found.step, _arguments(found.args, name), numbers)
    if isinstance(found, tuple) and len(found) == 2 and callable(found[0]):
        return Named(found[0], _arguments(found[1], name), ())
    raise UsageError(
        f"{name!r} is a {type(found).__name__}. Name something with .step and .args, "
        "a pair of a function and its arguments, or a function that returns one."
    )


def _arguments(args: Any, name: str) -> tuple[Any, ...]:
    if isinstance(args, (tuple, list)):
        return tuple(args)
    raise UsageError(
        f"The arguments of {name!r} are a {type(args).__name__}. Give a tuple of them, "
        "also if there is one."
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
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it may raise anything
        # One that ends the process is a script, say, that has no `if __name__`.
        _show(error)
        raise UsageError(f"{module} could not be imported ({_said(error)}).") from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _show(error: BaseException) -> None:
    # From the lines of the user on.
    trace = error.__traceback__
    while trace is not None and _is_between(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    traceback.print_exception(error.with_traceback(trace))


def _is_between(file: str) -> bool:
    return file == __file__ or "importlib" in file
