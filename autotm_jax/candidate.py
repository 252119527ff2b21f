"""One order of a step: the plans that it allows, and the search for them."""

from __future__ import annotations

import dataclasses
import functools

from .budget import format_bytes
from .changes import as_emitted
from .config import LOGGER
from .found import SEARCH, Found, read_found, written
from .placing import AGAIN, Placing
from .plan import Plan
from .profile import cache
from .report.peak import tightest_point
from .simulate import simulate
from .solve import (
    Deadline,
    Formulation,
    Pick,
    Problem,
    Schedule,
    Solution,
    SolverOptions,
    Status,
    offload_everything,
    packed_bytes,
    repack,
    replay,
    shake,
)


# How often a plan that packs badly is solved again with a lower limit.
_PACKING_ROUNDS = 2

# By which part it may be over the limit for XLA to have the last word on it.
_NEAR = 0.05

# Seconds at most for making a plan fit that only packs badly.
_REPACK_SECONDS = 8.0

# The part of the time that is left which one such attempt takes.
_REPACKED = 0.75

# How often that is tried for what is no longer quite what was made to fit.
_REPACKINGS = 4

# A plan that fits is not looked for any longer if it is slower than the one that does
# not, or where that may be improved, than its bound, by this factor at most.
_NEARLY = 1.001

# Where all that is fast packs much too badly: at which parts of the way from the plan
# that needs least to the limit plans are looked for instead, and for how many seconds.
_ON_THE_WAY = (0.75, 0.5, 0.25)
_WAY_SECONDS = 6.0

# A plan is said to take longer where its copies queue if it does by this factor.
_QUEUES = 1.1

# Another plan, where XLA packs one otherwise than predicted, may be slower by this.
_ABOUT_AS_FAST = 1.1

# To find one it is shaken so often, otherwise than for any of so many others.
_MOST_SHAKEN = 3
_SEEDS = 100

# Another order is searched if its bound is lower than a plan by this factor.
_BEATS = 1.005

# A cache entry that says that there is none.
_NO_PLAN = "none"


class Candidate(Placing):
    """A priced program, and every plan that is made of it.

    **Arguments:** those of a `Placing`.
    """

    @functools.cached_property
    def _found(self) -> list[tuple[int, Found]]:
        # What was found, with its allocation: it may be better for another limit, too.
        return []

    def of(self, formulation: Formulation) -> Candidate:
        """The same program, to be placed by another boolean program."""
        rest = self._host_limit, self._solver, self._measured
        return Candidate(self.traced, self._target, *rest, formulation)

    def within(self, limit: int, slack: int = 0, gap: float = 0.0) -> Found | None:
        """A fast plan whose allocation, not only its live bytes, keeps a limit.

        The solver's time limit is for all of the search; what XLA is asked on the way,
        and building the program once, does not count.

        **Arguments:**

        - `limit`: device bytes of temporaries.
        - `slack`: how much less is tried for first. A plan that packs badly may end
            up to a few percent over the limit; XLA has the last word on that.
        - `gap`: a relative MIP gap that is small enough here, if the solver's is not.

        **Returns:**

        What was found, or `None`.
        """
        options = dataclasses.replace(self._solver, gap=max(gap, self._solver.gap))
        found = self._search(limit, slack, options)
        LOGGER.debug(
            "Searched (%s) within %s of temporaries: %s.",
            self._formulation.value,
            format_bytes(limit),
            "nothing was found"
            if found is None
            else f"{found.status.value}, {found.objective * 1e3:.2f} ms",
        )
        if found is None:
            return None
        self._found.append((self.allocation(found.schedule), found))
        fits = [known for nbytes, known in self._found if nbytes <= limit]
        best = min([found, *fits], key=lambda known: known.objective)
        return dataclasses.replace(best, status=found.status, bound=found.bound)

    def _search(self, limit: int, slack: int, options: SolverOptions) -> Found | None:
        _ = self.problem  # priced, before the search begins
        deadline = Deadline(options.time_limit)
        aim = max(0, limit - slack)
        found = self.fastest(aim, options, deadline)
        if found is None:
            return self.fastest(max(0, limit), options, deadline) if slack else None
        best = found
        for _ in range(_PACKING_ROUNDS):
            with deadline.paused():
                over = self.allocation(best.schedule) - limit
            if over <= 0:
                break
            packed = self._fitting(best, limit, deadline)
            if packed is not None:
                return packed
            if deadline.left() <= AGAIN * best.seconds:
                break
            aim = max(0, aim - over)
            found = self.fastest(aim, options, deadline)
            if found is None:
                break
            best = found
        with deadline.paused():
            return self._less_instead(best, limit)

    def may_beat(self, seconds: float, limit: int) -> bool:
        """Whether a plan within a limit may be faster than one that was found.

        **Arguments:**

        - `seconds`: of the step by that one.
        - `limit`: device bytes of temporaries.
        """
        problem = dataclasses.replace(self.problem, device_limit=float(limit))
        key = cache.cache_key("relaxation", SEARCH, self._formulation, problem)
        bound = cache.load("plan", key)
        if not isinstance(bound, float):
            bound = self._placement.relaxation(problem.device_limit)
            if bound is None:
                return True
            cache.store("plan", key, bound)
        return _BEATS * bound < seconds

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

    def _less_instead(self, found: Found, limit: int) -> Found:
        """A plan that needs less, if what was found packs much too badly.

        That of a lower limit, if it packs; or else the plan that needs least.
        """
        if self.nearly_packs(found, limit) or not self._kind.allows_everything:
            return found
        least = self.polished(self.least).schedule
        taken = self.allocation(least)
        if taken > limit:
            return found
        seconds = replay(self.problem, least).makespan
        options = dataclasses.replace(self._solver, time_limit=_WAY_SECONDS)
        for part in _ON_THE_WAY:
            aim = int(taken + part * (limit - taken))
            less = self.fastest(aim, options, Deadline(_WAY_SECONDS))
            if less is None or less.objective >= seconds:
                continue
            if self.allocation(less.schedule) <= limit:
                bound = min(found.bound, less.objective)
                return dataclasses.replace(less, status=Status.REPACKED, bound=bound)
        note = "it is the plan that needs least: what is faster packs too badly"
        return dataclasses.replace(
            found,
            status=Status.REPACKED,
            schedule=least,
            objective=seconds,
            note=note,
        )

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
            if seconds >= _REPACKED * _REPACK_SECONDS:
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

    def nearly_packs(self, found: Found, limit: int) -> bool:
        """Whether a plan's allocation is so near to a limit that XLA may keep it."""
        return self.allocation(found.schedule) <= (1 + _NEAR) * limit

    def allocation(self, schedule: Schedule) -> int:
        """Bytes of temporaries, packed as XLA does."""
        problem = self._as_planned(schedule, self.problem)
        return packed_bytes(problem, replay(problem, schedule))

    def _as_planned(self, schedule: Schedule, problem: Problem) -> Problem:
        # With the workspace of the segments as they are emitted.
        rest = self.program, self.costs, self._target
        return as_emitted(problem, schedule, *rest)

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

    def plan(self, found: Found, budget: int | None, limit: float, note: str) -> Plan:
        """What was found as a `Plan`."""
        bound = None if found is self.least else found.bound
        found = self.polished(found)
        problem = self._as_planned(found.schedule, self.problem)
        peak = replay(problem, found.schedule).device_peak
        problem = dataclasses.replace(problem, device_limit=max(limit, peak))
        # The checker says what it takes, and the simulator whether it does where copies
        # queue up, which the checker spreads.
        played = simulate(problem, found.schedule)
        state, queues = played.replay, ""
        if played.seconds > _QUEUES * played.modelled:
            more = played.seconds / played.modelled - 1
            queues = f"played event by event, it takes {more:.0%} longer than modelled"
        return Plan(
            budget,
            found.status,
            found.schedule,
            note="; ".join(filter(None, (note, found.note, queues))),
            device_bytes=self.fixed_bytes + packed_bytes(problem, state),
            host_bytes=state.host_peak,
            seconds=state.makespan,
            simulated_seconds=played.seconds,
            unconstrained_seconds=self.unconstrained,
            bound=bound,
            gap=found.gap,
            solver=found.solver,
            solve_seconds=found.seconds,
            program=self.program,
            problem=problem,
            replay=state,
            costs=self.costs,
            machine=self.machine,
            formulation=self._formulation,
        )

    def tightest_point(self) -> str:
        """Where the plan that needs least needs most, and the largest values there."""
        return tightest_point(self.program, self.problem, self.least.schedule)


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
