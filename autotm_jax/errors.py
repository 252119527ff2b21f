"""What can go wrong, as exceptions and warnings with a name."""

import inspect
import warnings


class AutoTMError(Exception):
    """Base class of the errors of this package."""


class BudgetError(AutoTMError, ValueError):
    """A budget that cannot be understood or can never be met."""


class ConfigError(AutoTMError, ValueError):
    """A setting that there is not, or a value that is none for it."""


class InfeasibleBudget(AutoTMError):
    """No plan meets the budget.

    - `least`: the smallest number of device bytes for which a plan was found, or
        `None` if there is none.
    """

    def __init__(self, message: str, least: int | None = None):
        super().__init__(message)
        self.least = least


class PlanFileError(AutoTMError, ValueError):
    """A file that is no plan, or a plan that is not one of this step."""


class PlanNotRealised(AutoTMError):
    """XLA compiled the planned step into something else than was planned."""


class TargetError(AutoTMError, ValueError):
    """A machine that is not known, or cannot be compiled for here."""


class VariantError(AutoTMError, TypeError):
    """Functions that cannot stand in for each other."""


class ReportError(AutoTMError):
    """A report, or a file of one, that cannot be made."""


class SolverError(AutoTMError):
    """The solver is missing, crashed, or returned nonsense."""


class AutoTMWarning(UserWarning):
    """Something the user should know, which does not make results wrong."""


# What stands between the user's line and a warning.
_INSIDE = ("autotm_jax", "jax", "jaxlib", "contextlib", "functools", "concurrent")


def warn(text: str) -> None:
    """Warns the user, at the line of theirs that led here."""
    level, frame = 1, inspect.currentframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _INSIDE:
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(text, AutoTMWarning, stacklevel=level)
