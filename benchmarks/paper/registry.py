"""The experiments by name.

An experiment is a function that takes a `Study` and returns a `Report`. Its module
registers it, and `__main__.py` imports the module.
"""

from __future__ import annotations

from collections.abc import Callable

from .report import Report
from .study import Study


Experiment = Callable[[Study], Report]

EXPERIMENTS: dict[str, Experiment] = {}
"""By name, in the order in which they run."""


def experiment(name: str) -> Callable[[Experiment], Experiment]:
    """Registers an experiment.

    !!! Example

        ```python
        @experiment("ratios")
        def ratios(study: Study) -> Report:
            ...
        ```

    **Arguments:**

    - `name`: what the command line calls it.

    **Returns:**

    A decorator.
    """

    def register(function: Experiment) -> Experiment:
        assert name not in EXPERIMENTS
        EXPERIMENTS[name] = function
        return function

    return register
