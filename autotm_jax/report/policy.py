"""A plan as a policy of `jax.checkpoint`, as far as names go.

A policy knows a value by the name that `jax.ad_checkpoint.checkpoint_name` gives it, in
all layers alike, and copies only between the forward and the backward pass. So it is
less than the plan: of each name, what becomes of most of its bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from ..errors import ReportError
from ..solve import Way
from .course import course_of


if TYPE_CHECKING:
    from ..plan import Plan


# What `checkpoint_name` is called in a jaxpr.
_NAME = "name"


def ways_by_name(plan: Plan) -> dict[str, Way]:
    """What a plan does with most of the bytes of each name.

    What crosses no cut under its name is said to be computed again: nobody needs it to
    be kept.

    **Raises:**

    - `ReportError`: if the step was not analysed.
    """
    plan = plan.analysed()
    held = {item.value: item for item in course_of(plan).held}
    assert plan.program is not None
    votes: dict[str, Counter[Way]] = defaultdict(Counter)
    for equation in plan.program.equations:
        if equation.eqn.primitive.name != _NAME:
            continue
        known = votes[equation.eqn.params["name"]]
        found = {v for v in (*equation.operands, *equation.outputs) if v in held}
        for value in found:
            known[held[value].way] += held[value].nbytes
    return {
        name: known.most_common(1)[0][0] if known else Way.AGAIN
        for name, known in votes.items()
    }


def policy_of(plan: Plan) -> Callable[..., Any]:
    """A policy of `jax.checkpoint`: see `Plan.policy`."""
    ways = ways_by_name(plan)
    if not ways:
        raise ReportError(
            "A policy of jax.checkpoint goes by names, and the step names no values. "
            "Name some with jax.ad_checkpoint.checkpoint_name, and plan it again."
        )
    moved = [n for n, way in ways.items() if way in (Way.MOVES, Way.BOTH)]
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[n for n, way in ways.items() if way is Way.STAYS],
        names_which_can_be_offloaded=moved,
        offload_src="device",
        offload_dst="pinned_host",
    )
