"""Settings of the process, from the environment or set by the program.

What is set by the program goes before what the environment says.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ConfigError, warn


LOGGER = logging.getLogger("autotm_jax")
"""Says what is planned and compiled at level INFO, and at DEBUG what is searched on
the way. Nothing is shown by default."""

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _directory(value: Any) -> Path:
    return Path(value).expanduser()


def _level(value: Any) -> str:
    name = str(value).upper()
    if name not in _LEVELS:
        raise ValueError(name)
    return name


def _threads(value: Any) -> int | None:
    if isinstance(value, bool) or int(value) < 1 or int(value) != float(value):
        raise ValueError(value)
    return int(value)


def _finite(value: Any) -> float:
    if not 0 <= float(value) < float("inf"):
        raise ValueError(value)
    return float(value)


def _switch(value: Any) -> bool:
    known = {"0": False, "false": False, "1": True, "true": True}
    if str(value).lower() not in known:
        raise ValueError(value)
    return known[str(value).lower()]


@dataclasses.dataclass(frozen=True)
class _Setting:
    """One setting: its variable, how it is read, its default, what it has to be."""

    variable: str
    read: Callable[[Any], Any]
    default: Callable[[], Any]
    wanted: str


def _usual_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "autotm-jax"


_SETTINGS = {
    "cache_directory": _Setting(
        "AUTOTM_JAX_CACHE", _directory, _usual_directory, "the path of a directory"
    ),
    "log_level": _Setting(
        "AUTOTM_JAX_LOG", _level, lambda: "WARNING", f"one of {', '.join(_LEVELS)}"
    ),
    "measure": _Setting("AUTOTM_JAX_MEASURE", _switch, lambda: True, "1 or 0"),
    "progress": _Setting("AUTOTM_JAX_PROGRESS", _switch, lambda: True, "1 or 0"),
    "solver_gap": _Setting(
        "AUTOTM_JAX_SOLVER_GAP",
        _finite,
        lambda: 0.01,
        "a finite number that is not less than zero",
    ),
    "solver_threads": _Setting(
        "AUTOTM_JAX_SOLVER_THREADS",
        _threads,
        lambda: None,
        "a whole number, one or more",
    ),
    "solver_time_limit": _Setting(
        "AUTOTM_JAX_SOLVER_TIME_LIMIT",
        _finite,
        lambda: 12.0,
        "a finite number of seconds that is not less than zero",
    ),
}


class Config:
    """Settings of the process: `autotm.config`.

    !!! Example

        ```python
        autotm.config.update("log_level", "INFO")
        autotm.config.update("solver_time_limit", 60)
        ```

    - `cache_directory` (`AUTOTM_JAX_CACHE`): where costs and plans are kept between
        processes.
    - `log_level` (`AUTOTM_JAX_LOG`): from which level on the logger `autotm_jax` says
        what it does; `"INFO"` for what is planned and compiled, `"DEBUG"` for each
        search on the way.
    - `measure` (`AUTOTM_JAX_MEASURE`): whether steps are timed on a device that is
        here.
    - `progress` (`AUTOTM_JAX_PROGRESS`): whether what takes long shows a progress bar
        where standard error is a terminal.
    - `solver_gap` (`AUTOTM_JAX_SOLVER_GAP`): the relative MIP gap at which the solver
        stops.
    - `solver_threads` (`AUTOTM_JAX_SOLVER_THREADS`): that the solver uses; `None`
        leaves it to the solver.
    - `solver_time_limit` (`AUTOTM_JAX_SOLVER_TIME_LIMIT`): seconds of search for one
        order of a step. `autotm_jax.SolverOptions` says all three for one step.
    """

    _set: dict[str, Any]

    def __init__(self) -> None:
        object.__setattr__(self, "_set", {})

    def __setattr__(self, name: str, value: Any) -> None:
        self.update(name, value)

    def __getattr__(self, name: str) -> Any:
        setting = _SETTINGS.get(name)
        if setting is None:
            raise AttributeError(_unknown(name))
        if name in self._set:
            return self._set[name]
        said = os.environ.get(setting.variable)
        if not said:
            return setting.default()
        return _read(setting.variable, setting, said)

    def update(self, name: str, value: Any) -> None:
        """Sets one of the settings.

        **Arguments:**

        - `name`: of the setting.
        - `value`: what it is from now on; `None` for what the environment says.

        **Raises:**

        - `ConfigError`: if there is no such setting, or the value is none for it.
        """
        setting = _SETTINGS.get(name)
        if setting is None:
            raise ConfigError(_unknown(name))
        if value is None:
            self._set.pop(name, None)
        else:
            self._set[name] = _read(name, setting, value)
        if name == "log_level":
            _set_level(self.log_level)

    def __repr__(self) -> str:
        known = ", ".join(f"{name}={getattr(self, name)!r}" for name in _SETTINGS)
        return f"autotm_jax.config({known})"


def _read(name: str, setting: _Setting, value: Any) -> Any:
    try:
        return setting.read(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ConfigError(f"{name} is {value!r}. Give {setting.wanted}.") from error


def _unknown(name: str) -> str:
    return f"There is no setting {name!r}. There are {', '.join(_SETTINGS)}."


def _set_level(level: str) -> None:
    # What the program has set up for its own logs stands.
    LOGGER.setLevel(level)
    if not LOGGER.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        # Until the program sets up one of its own.
        handler.addFilter(lambda record: not logging.getLogger().handlers)
        LOGGER.addHandler(handler)


config = Config()


def hides_progress(progress: bool | None = None) -> bool | None:
    """What tqdm is told: whether to hide a bar.

    **Arguments:**

    - `progress`: whether a bar is wanted; `None` for what `config` says.

    **Returns:**

    `True` to hide it, `False` to show it, `None` to hide it unless standard error is a
    terminal.
    """
    if progress is None:
        return None if config.progress else True
    return not progress


if os.environ.get("AUTOTM_JAX_LOG"):
    try:
        _set_level(config.log_level)
    except ConfigError as error:
        # An import that fails helps nobody.
        warn(f"{error} Until then it is WARNING.")
