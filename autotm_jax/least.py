"""The plan for `"min"`: as little memory as possible, give or take what buys time."""

from __future__ import annotations

from .candidate import Candidate
from .found import Found
from .plan import Plan


# XLA packs buffers a little less tightly than a sum of bytes.
_SLACK = 0.015

# Where memory is what is asked for, a plan need not be the fastest of all.
_GAP = 0.03

# What is given up of the least memory, as the last bytes cost most of the time: so much
# of the temporaries, or more if the step would be this many times slower than without a
# limit; each only for a step that is faster by the second factor.
_ROOMS = (0.1, 0.2, 0.3)
_NEEDLESS = 1.5
_PAYS = 1.2

# How much more a plan may take there because it packs badly.
_PACKED_BADLY = 1.03


def least_plan(candidate: Candidate, note: str) -> tuple[tuple[Found, Candidate], Plan]:
    """The plan for as little as possible.

    **Arguments:**

    - `candidate`: the order that it is of.
    - `note`: what the plan says in any case.

    **Returns:**

    What it was made of, and the `Plan`.
    """
    least = candidate.least
    best = candidate.plan(least, None, least.objective, note)
    plans, made_of = [best], {id(best): least}
    needless = _NEEDLESS * sum(candidate.problem.compute)
    for room in _ROOMS:
        # Never more than half of what there is to be saved.
        saved = candidate.cut_bytes - candidate.least_bytes
        limit = least.objective + min(room * least.objective, max(0, saved) / 2)
        found = candidate.within(int(limit), int(_SLACK * limit), _GAP)
        if found is not None:
            plans.append(candidate.plan(found, None, int(limit), note))
            made_of[id(plans[-1])] = found
        # What packs badly takes more than it was to take, and may be all there is.
        smallest = min(plans, key=_nbytes)
        enough = candidate.fixed_bytes + _PACKED_BADLY * limit
        enough = max(enough, _nbytes(smallest))
        if _nbytes(best) > enough:
            best = smallest
        fastest = min((p for p in plans if _nbytes(p) <= enough), key=_seconds)
        if _PAYS * _seconds(fastest) < _seconds(best):
            best = fastest
        if _seconds(best) <= needless:
            break
    return (made_of[id(best)], candidate), best


def _nbytes(plan: Plan) -> int:
    assert plan.device_bytes is not None
    return plan.device_bytes


def _seconds(plan: Plan) -> float:
    return float("inf") if plan.seconds is None else plan.seconds
