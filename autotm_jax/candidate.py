"""One order of a step: the plans that it allows, and the search for them."""

from __future__ import annotations

import dataclasses
import functools

from .budget import format_bytes
from .config import LOGGER
from .fitting import Fitting
from .found import SEARCH, Found
from .placing import AGAIN
from .plan import Plan
from .profile import cache
from .report.peak import tightest_point
from .simulate import simulate
from .solve import (
    Deadline,
    Formulation,
    SolverOptions,
    Status,
    packed_bytes,
    replay,
)


# How often a plan that packs badly is solved again with a lower limit.
_PACKING_ROUNDS = 2

# Where all that is fast packs much too badly, lower limits are tried so often, for so
# many seconds each, unless a plan is slower than what was found by this factor at most.
_LOWER_LIMITS = 3
_LOWER_SECONDS = 6.0
_MUCH_SLOWER = 1.1

# A plan is said to take longer where its copies queue if it does by this factor.
_QUEUES = 1.1

# Another order is searched if its bound is lower than a plan by this factor.
_BEATS = 1.005


class Candidate(Fitting):
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
            lower = max(0, aim - over)
            found = self.fastest(lower, options, deadline)
            if found is None:
                break
            best, aim = found, lower
        with deadline.paused():
            return self._less_instead(best, limit, aim)

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

    def _less_instead(self, found: Found, limit: int, aim: int) -> Found:
        """A plan that needs less, if what was found packs much too badly.

        The fastest that fits of those for limits below the last `aim`, or the plan that
        needs least.
        """
        if self.nearly_packs(found, limit) or not self._kind.allows_everything:
            return found
        least = self.polished(self.least).schedule
        taken = self.allocation(least)
        if taken > limit:
            return found
        note = "it is the plan that needs least: what is faster packs too badly"
        seconds, status = replay(self.problem, least).makespan, Status.REPACKED
        best = dataclasses.replace(
            found, status=status, schedule=least, objective=seconds, note=note
        )
        options = dataclasses.replace(self._solver, time_limit=_LOWER_SECONDS)
        over = self.allocation(found.schedule) - limit
        low, high = taken, aim
        aim = max(high - over, (low + high) // 2)
        for _ in range(_LOWER_LIMITS):
            if best.objective <= _MUCH_SLOWER * found.objective or not low < aim < high:
                break
            less = self.fastest(aim, options, Deadline(_LOWER_SECONDS))
            fits = less is None or self.allocation(less.schedule) <= limit
            if less is not None and not fits:
                less = self._fitting(less, limit, Deadline(_LOWER_SECONDS))
            low, high = (aim, high) if fits else (low, aim)
            if less is not None and less.objective < best.objective:
                if self.allocation(less.schedule) <= limit:
                    best = dataclasses.replace(less, status=status)
            aim = (low + high) // 2
        return dataclasses.replace(best, bound=min(found.bound, best.objective))

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
