"""The experiments by name.

An experiment is a function that takes a `Study` and returns a `Report`, or `None` if
what it takes is not installed. Its module registers it, and `__main__.py` imports the
module.
"""

from __future__ import annotations

from collections.abc import Callable

from .report import Report
from .study import Study


Experiment = Callable[[Study], Report | None]

EXPERIMENTS: dict[str, Experiment] = {}
"""By name, in the order in which their modules are imported."""

LONG: set[str] = set()
"""Those whose full form takes so long that it runs beside the others."""


def experiment(
    name: str, takes_long: bool = False
) -> Callable[[Experiment], Experiment]:
    """Registers an experiment.

    !!! Example

        ```python
        @experiment("ratios")
        def ratios(study: Study) -> Report:
            ...
        ```

    **Arguments:**

    - `name`: what the command line calls it.
    - `takes_long`: whether its full form runs beside the others, in a process of its
        own.

    **Returns:**

    A decorator.
    """

    def register(function: Experiment) -> Experiment:
        assert name not in EXPERIMENTS
        EXPERIMENTS[name] = function
        if takes_long:
            LONG.add(name)
        return function

    return register
