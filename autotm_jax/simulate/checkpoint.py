"""What the policies of `jax.checkpoint` come to on a problem.

Such a policy says by the kind of operation what the backward pass finds, and nothing of
a memory limit: everything else is dropped after its last use in a row and computed
again for the next. What `jax.checkpoint` is wrapped around, a layer or the whole step,
is for the user to say; here every value with a recipe is dropped on its own, if its
next use is three segments on or more, or in another loop, and what it is made from is
there or can be made again, too. All times are simulated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from ..solve import Problem, recompute_everything
from .outcome import Outcome
from .playing import simulate


def nothing_saveable(problem: Problem) -> Outcome:
    """As `jax.checkpoint_policies.nothing_saveable`: all that can be is made again.

    **Arguments:**

    - `problem`: the step.

    **Returns:**

    An `Outcome`. If it takes more than the device limit, its note says so.
    """
    schedule = recompute_everything(problem)
    return simulate(problem, schedule).outcome("nothing saveable")


def dots_saveable(problem: Problem, dots: Collection[int]) -> Outcome:
    """As `jax.checkpoint_policies.dots_saveable`: what contractions make is kept.

    **Arguments:**

    - `problem`: the step.
    - `dots`: tensors that contractions make, as positions in `problem.tensors`.

    **Returns:**

    An `Outcome`. If it takes more than the device limit, its note says so.
    """
    tensors = tuple(
        dataclasses.replace(tensor, recipe=None) if index in dots else tensor
        for index, tensor in enumerate(problem.tensors)
    )
    kept = dataclasses.replace(problem, tensors=tensors)
    return simulate(kept, recompute_everything(kept)).outcome("dots saveable")
