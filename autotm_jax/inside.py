"""Plans of what is inside conditionals, as variants of these.

A branch that needs much memory of its own (a gradient that is taken every other step,
say) is planned as a step is, for a few limits. What the conditional takes by each of
these plans is then known as that of any variant is, and the plan of the step around it
says which one runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.extend.core as jex_core

from . import compat
from .budget import format_bytes
from .candidate import Candidate
from .emit import emit
from .formulate import live_bytes
from .plan import Plan
from .trace import Choice, Planned, Program, as_it_is, with_branches


# How many plans there are of one conditional.
_LEVELS = 3

# How much more than the least is tried for, and the part of what a branch takes as it
# is that such a plan may take at most.
_ROOM = 1.1
_SAVES = 0.9

# XLA packs buffers a little less tightly than a sum of bytes.
_SLACK = 0.01


class Inside:
    """The ways to run the conditionals of a step.

    **Arguments:**

    - `candidate`: prices the closed jaxpr of a branch.
    - `worth`: bytes of temporaries below which a branch is left alone.
    """

    def __init__(self, candidate: Callable[[Any], Candidate], worth: float):
        self._candidate, self._worth = candidate, worth
        # By the branches of a conditional, which the step's jaxpr keeps alive.
        self._known: dict[tuple[int, ...], Choice | None] = {}

    def __call__(self, eqn: jex_core.JaxprEqn) -> Choice | None:
        """The ways to run a conditional; `None` if there is but one."""
        key = tuple(map(id, eqn.params["branches"]))
        if key not in self._known:
            self._known[key] = self._choice(eqn)
        return self._known[key]

    def _choice(self, eqn: jex_core.JaxprEqn) -> Choice | None:
        candidates = enumerate(map(self._candidate, eqn.params["branches"]))
        large = {n: c for n, c in candidates if self._is_worth_it(c.traced)}
        if not large:
            return None
        ways = {"as it is": (as_it_is(eqn), Planned())}
        fastest = max(c.unconstrained for c in large.values())
        least_added = math.inf
        for limit in _limits(list(large.values())):
            plans = {n: _within(c, limit) for n, c in large.items()}
            found = {n: plan for n, plan in plans.items() if plan is not None}
            seconds = max((plan.seconds or 0.0 for plan in found.values()), default=0.0)
            added = max(0.0, seconds - fastest)
            # More memory has to make it faster.
            if len(found) < len(plans) or added >= least_added:
                continue
            least_added = added
            branches = [
                _planned(found[n]) if n in found else jex_core.jaxpr_as_fun(branch)
                for n, branch in enumerate(eqn.params["branches"])
            ]
            host = max(plan.host_bytes for plan in found.values())
            copies = sum(plan.copies for plan in found.values())
            way = f"within {format_bytes(limit)}"
            ways[way] = with_branches(eqn, branches), Planned(added, host, copies)
        if len(ways) == 1:
            return None
        of = f"the conditional at {compat.source_line(eqn)}"
        closed, planned = zip(*ways.values(), strict=True)
        return Choice(of, tuple(ways), closed, (), planned)

    def _is_worth_it(self, branch: Program) -> bool:
        # It may do next to nothing but call what has other ways to run.
        has_ways = any(segment.body.branches for segment in branch.segments)
        return has_ways or live_bytes(branch) > self._worth


def _limits(candidates: Sequence[Candidate]) -> list[int]:
    """Bytes of temporaries to plan for, from little more than the least."""
    most = max(c.cut_bytes - c.fixed_bytes for c in candidates)
    least = max(c.least_bytes - c.fixed_bytes for c in candidates)
    first = _ROOM * least
    if first > _SAVES * most:
        return []
    return [int(first * (most / first) ** (n / _LEVELS)) for n in range(_LEVELS)]


def _within(candidate: Candidate, limit: int) -> Plan | None:
    found = candidate.within(limit, int(_SLACK * limit))
    return None if found is None else candidate.plan(found, None, limit, "")


def _planned(plan: Plan) -> Callable[..., list[Any]]:
    assert plan.program is not None
    return emit(plan.program, plan.schedule)
