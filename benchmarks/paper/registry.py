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

BEGINNINGS: dict[str, Callable[[Study], None]] = {}
"""What begins those that take long, so that they go on beside the others."""


def experiment(
    name: str, begin: Callable[[Study], None] | None = None
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
    - `begin`: called before any experiment that is asked for runs. What it begins goes
        on in other processes.

    **Returns:**

    A decorator.
    """

    def register(function: Experiment) -> Experiment:
        assert name not in EXPERIMENTS
        EXPERIMENTS[name] = function
        if begin is not None:
            BEGINNINGS[name] = begin
        return function

    return register
