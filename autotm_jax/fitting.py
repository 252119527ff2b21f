"""How plans pack: the one that needs least, and plans that are changed until they fit.

What a plan takes is not what is alive at once: see `solve/heap.py`.
"""

from __future__ import annotations

import dataclasses
import functools

from .changes import as_emitted
from .found import SEARCH, Found, read_found, written
from .placing import Placing
from .profile import cache
from .solve import (
    Deadline,
    Pick,
    Problem,
    Schedule,
    Solution,
    Status,
    offload_everything,
    packed_bytes,
    repack,
    replay,
    shake,
)


# By which part it may be over the limit for XLA to have the last word on it.
_NEAR = 0.05

# Seconds at most for making a plan fit that only packs badly.
_REPACK_SECONDS = 8.0

# The part of the time that is left which one such attempt takes.
_REPACKED = 0.75

# With this part of the seconds it need not be tried again: it would find nothing.
_ENOUGH = 0.5

# How often that is tried for what is no longer quite what was made to fit.
_REPACKINGS = 4

# A plan that fits is not looked for any longer if it is slower than the one that does
# not, or where that may be improved, than its bound, by this factor at most.
_NEARLY = 1.001

# Another plan, where XLA packs one otherwise than predicted, may be slower by this.
_ABOUT_AS_FAST = 1.1

# To find one it is shaken so often, otherwise than for any of so many others.
_MOST_SHAKEN = 3
_SEEDS = 100

# A cache entry that says that there is none.
_NO_PLAN = "none"


class Fitting(Placing):
    """A priced program, and what its plans take as XLA packs them.

    **Arguments:** those of a `Placing`.
    """

    def allocation(self, schedule: Schedule) -> int:
        """Bytes of temporaries, packed as XLA does."""
        problem = self._as_planned(schedule, self.problem)
        return packed_bytes(problem, replay(problem, schedule))

    def nearly_packs(self, found: Found, limit: int) -> bool:
        """Whether a plan's allocation is so near to a limit that XLA may keep it."""
        return self.allocation(found.schedule) <= (1 + _NEAR) * limit

    @functools.cached_property
    def least(self) -> Found:
        """The plan whose allocation is smallest, however slow; its objective: bytes."""
        problem = self.problem
        key = cache.cache_key(
            "least",
            SEARCH,
            self._formulation,
            problem,
            problem.timelines,
            self._solver,
        )
        known = read_found(cache.load("plan", key))
        if known is not None:
            return known

        def taken(schedule: Schedule) -> float:
            state = replay(problem, schedule)
            return float("inf") if state.faults else packed_bytes(problem, state)

        solution = Solution(Status.OPTIMAL, None, 0.0, 0.0, 0.0)
        schedules = [Schedule()]
        if self._kind.allows_everything:
            schedules.append(offload_everything(problem))
        if problem.tensors:
            solution = self._placement.least_memory(self._solver)
        if solution.schedule is not None:
            schedules.append(solution.schedule)
        picks = _least_workspace(problem)
        schedules += [dataclasses.replace(s, picks=picks) for s in schedules]
        best = min(map(self.arranged, schedules), key=taken)
        peak = float(taken(best))
        is_proved = solution.status is Status.OPTIMAL
        status = Status.OPTIMAL if is_proved else Status.TIME_LIMIT
        bound = solution.bound if problem.tensors else peak
        figures, solver = (peak, bound, solution.seconds), solution.solver
        known = Found(status, best, *figures, solver=solver)
        cache.store("plan", key, written(known))
        return known

    @property
    def least_bytes(self) -> int:
        """Device bytes of the plan that needs least."""
        return self.fixed_bytes + int(self.least.objective)

    def nearby(self, found: Found, limit: int) -> Found | None:
        """A plan like one that was found, whose allocation keeps a limit."""
        return self._fitting(found, limit, Deadline(_REPACK_SECONDS))

    def another(self, found: Found, limit: int, number: int) -> Found | None:
        """Another plan, about as fast, whose allocation keeps a limit as well.

        **Arguments:**

        - `found`: a plan that keeps it.
        - `limit`: device bytes of temporaries.
        - `number`: which one, from 1.

        **Returns:**

        What was found, or `None`.
        """
        if not self._kind.allows_everything:
            return None  # it would move by other rules
        schedule = self.polished(found).schedule
        problem = self._as_planned(schedule, self.problem)
        problem = dataclasses.replace(problem, device_limit=float(limit))
        parts = "another", SEARCH, problem, problem.timelines, schedule, number
        key = cache.cache_key(*parts)
        is_known, known = _kept(problem, key)
        if is_known:
            return known
        enough = _ABOUT_AS_FAST * replay(problem, schedule).makespan
        for seed in range(number, _MOST_SHAKEN * _SEEDS, _SEEDS):
            other = shake(problem, schedule, _REPACK_SECONDS, enough, seed)
            if other is not None and other != schedule:
                break
        else:
            cache.store("plan", key, _NO_PLAN)
            return None
        # The objective of the plan that needs least, and its bound, are bytes.
        bound = 0.0 if found is self.least else found.bound
        seconds = replay(problem, other).makespan
        changed = dataclasses.replace(
            found,
            status=Status.REPACKED,
            schedule=other,
            objective=seconds,
            bound=min(bound, seconds),
        )
        if self.allocation(other) > limit:
            changed = self._fitting(changed, limit, Deadline(_REPACK_SECONDS))
        if changed is not None:
            cache.store("plan", key, written(changed))
        return changed

    def _fitting(self, found: Found, limit: int, deadline: Deadline) -> Found | None:
        """A plan made to fit with the workspace that segments have under it.

        Known is what they have under the one before, so that may take a few.
        """
        packed = self._repacked(found, limit, deadline)
        for _ in range(_REPACKINGS - 1):
            if packed is None:
                break
            with deadline.paused():
                if self.allocation(packed.schedule) <= limit:
                    break
            again = self._repacked(packed, limit, deadline)
            if again is None:
                break
            packed = again
        return packed

    def _repacked(self, found: Found, limit: int, deadline: Deadline) -> Found | None:
        if not self._kind.allows_everything:
            return None  # it would move by other rules
        with deadline.paused():
            problem = self._as_planned(found.schedule, self.problem)
        problem = dataclasses.replace(problem, device_limit=float(limit))
        key = cache.cache_key(
            "repacked",
            SEARCH,
            problem,
            problem.timelines,
            found.schedule,
            _REPACK_SECONDS,
        )
        is_known, known = _kept(problem, key)
        if is_known:
            return known
        seconds = min(_REPACK_SECONDS, _REPACKED * deadline.left())
        is_optimal = found.status is Status.OPTIMAL
        enough = _NEARLY * (found.objective if is_optimal else found.bound)
        schedule = repack(problem, found.schedule, seconds, enough)
        if schedule is None:
            if seconds >= _ENOUGH * _REPACK_SECONDS:
                cache.store("plan", key, _NO_PLAN)
            return None
        seconds = replay(problem, schedule).makespan
        # The gap that was proved is that of the plan that does not pack.
        status = Status.REPACKED if is_optimal else found.status
        packed = dataclasses.replace(
            found, status=status, schedule=schedule, objective=seconds
        )
        cache.store("plan", key, written(packed))
        return packed

    def _as_planned(self, schedule: Schedule, problem: Problem) -> Problem:
        # With the workspace of the segments as they are emitted.
        rest = self.program, self.costs, self._target
        return as_emitted(problem, schedule, *rest)


def _kept(problem: Problem, key: str) -> tuple[bool, Found | None]:
    """Whether a plan was looked for before, and what was found then."""
    entry = cache.load("plan", key)
    known = read_found(entry)
    if known is not None and not replay(problem, known.schedule).faults:
        return True, known
    return entry == _NO_PLAN, None


def _least_workspace(problem: Problem) -> tuple[Pick, ...]:
    picks = []
    for k, others in sorted(problem.variants.items()):
        ways = [problem.workspace[k], *(variant.workspace for variant in others)]
        if least := ways.index(min(ways)):
            picks.append(Pick(k, least))
    return tuple(picks)
