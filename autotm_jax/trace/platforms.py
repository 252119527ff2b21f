"""What a step does on one platform only.

`jax.lax.platform_dependent` traces what is to be done on every platform, as the
branches of a conditional. Which one runs is settled when the step is lowered for one of
them, so the others, and what would only be kept for them, are no part of the step.
"""

from __future__ import annotations

from typing import Any

import jax.extend.core as jex_core


_PLATFORMS = "branches_platforms"


def branch_on(platform: str | None, eqn: jex_core.JaxprEqn) -> Any | None:
    """What a conditional on the platform does.

    **Arguments:**

    - `platform`: JAX's name of what the step is lowered for; `None` if that is not
        known.
    - `eqn`: an equation.

    **Returns:**

    The closed jaxpr of the branch that runs, which takes all operands but the first;
    `None` if the equation is anything else, or if no branch is for the platform.
    """
    platforms = eqn.params.get(_PLATFORMS)
    if platform is None or platforms is None:
        return None
    # The one without names is for all platforms that no other one names.
    named = [i for i, names in enumerate(platforms) if names and platform in names]
    rest = [i for i, names in enumerate(platforms) if names is None]
    return next((eqn.params["branches"][i] for i in (*named, *rest)), None)
