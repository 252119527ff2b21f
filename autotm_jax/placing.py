"""The fastest plan of a step at one limit: from the cache, solved, or what is left.

Live bytes are what is limited here. How they pack is the concern of `fitting`.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from .errors import warn
from .found import SEARCH, Found, read_found, sound, written
from .machine import Target
from .priced import Priced
from .profile import cache
from .solve import (
    BooleanProgram,
    Deadline,
    Formulation,
    Pick,
    Problem,
    Schedule,
    Solution,
    SolverOptions,
    Status,
    best_policy,
    greedy,
    polish,
    replay,
    tidy,
)
from .trace import Program


# The part of the time limit for one solve. The rest is for making a plan fit.
_SOLVE = 0.6

# Device bytes that no step has.
_NO_LIMIT = 2.0**62

# The part of an iteration that may be missing for it to stay.
_NEARLY_WHOLE = 0.05

# XLA writes a loop out that runs once, and deletes the copies in it.
_SHORTEST_PART = 2

AGAIN = 1 / 2
"""The part of the time of a solve that there has to be for another one: with less, most
often nothing as good is found."""


class Placing(Priced):
    """A priced program, and the boolean program that places its tensors.

    **Arguments:** those of a `Priced`, and

    - `solver`: what the solver may take.
    """

    def __init__(
        self,
        program: Program,
        target: Target,
        host_limit: int,
        solver: SolverOptions,
        measured: bool = False,
        formulation: Formulation = Formulation.JOINT,
    ):
        super().__init__(program, target, host_limit, measured, formulation)
        self._solver = solver

    @functools.cached_property
    def _placement(self) -> BooleanProgram:
        # The limit is a parameter of the solve, not of the program.
        return self._kind(self.problem)

    @functools.cached_property
    def unconstrained(self) -> float:
        """Seconds of the step without a limit on the device.

        Where values cross from loop to loop, also the fastest way takes time for them:
        a bound, as if values could be divided.
        """
        fastest = self.problem.fastest()
        if not any(t.crossing for t in self.problem.tensors):
            return fastest
        return self._placement.relaxation(_NO_LIMIT) or fastest

    def parts(self, limit: int) -> dict[int, int]:
        """Where it may pay to cut pairs of loops in two.

        If tensors could be divided, some of one would stay and the rest go: so many
        iterations of the loop that makes it are to be treated one way, the others
        another.

        **Arguments:**

        - `limit`: device bytes of temporaries.

        **Returns:**

        By loop, as `trace.split_loops` takes them: how many iterations the first part
        has. Empty if there is nothing to be divided.
        """
        tensors, nest = self.problem.tensors, self.program.nest
        kept = self._placement.kept(float(limit), self._solver)
        most: dict[int, tuple[float, int]] = {}
        for index, part in kept.items():
            tensor = tensors[index]
            loop = self.program.values[tensor.value].loop
            assert loop is not None
            length = self.program.loops[loop].length
            stays = int(part * length + _NEARLY_WHOLE)
            stays = min(stays, length - _SHORTEST_PART)
            if stays >= _SHORTEST_PART:
                most[loop] = max(
                    most.get(loop, (0.0, 0)), (tensor.stacked, length - stays)
                )
        # Of loops inside each other only the outer one.
        return {
            loop: count
            for loop, (_, count) in most.items()
            if nest.loops[loop].parent not in most
        }

    def fastest(
        self, limit: int, options: SolverOptions, deadline: Deadline
    ) -> Found | None:
        """The fastest plan whose live bytes keep a limit, or `None` if none is found.

        **Arguments:**

        - `limit`: device bytes of temporaries.
        - `options`: what the solver may take, most of it.
        - `deadline`: of its time limit, which has begun.
        """
        problem = dataclasses.replace(self.problem, device_limit=float(limit))
        at_rest, fastest = _at_rest(problem), problem.fastest()
        state = replay(problem, at_rest)
        is_near = state.makespan * (1 - options.gap) <= fastest
        if not state.faults and (is_near or not problem.tensors):
            bound = fastest if is_near else state.makespan
            return Found(Status.OPTIMAL, at_rest, state.makespan, bound, 0.0)
        if problem.device_limit < problem.floor() or not problem.tensors:
            return None
        key = cache.cache_key("plan", SEARCH, self._formulation, problem, options)
        known = read_found(cache.load("plan", key))
        if known is not None and not replay(problem, known.schedule).faults:
            return known
        with deadline.paused():
            placement = self._placement
        granted, left = _SOLVE * options.time_limit, deadline.left()
        options = dataclasses.replace(options, time_limit=min(left, granted))
        solution = placement.fastest(problem.device_limit, options)
        if solution.status is Status.INFEASIBLE:
            return None
        found = self._or_policy(problem, solution, sound(problem, solution))
        if found is None:
            return self._greedily(problem, solution, deadline.left())
        found = self.polished(found)
        # A search that was cut short may find more with the time that the key names,
        # and one that ended early for nothing when its solver does not fail.
        is_whole = left >= granted and solution.seconds >= AGAIN * granted
        if found.status is Status.OPTIMAL or is_whole:
            cache.store("plan", key, written(found))
        return found

    def arranged(self, schedule: Schedule) -> Schedule:
        """A schedule as it is emitted in the end."""
        arrange = polish if self._kind.allows_everything else tidy
        return arrange(self.problem, schedule)

    def polished(self, found: Found) -> Found:
        """A plan without what serves nothing, its copies as XLA runs them best."""
        schedule = self.arranged(found.schedule)
        if schedule == found.schedule:
            return found
        seconds = max(found.objective, replay(self.problem, schedule).makespan)
        return dataclasses.replace(found, schedule=schedule, objective=seconds)

    def _or_policy(
        self, problem: Problem, solution: Solution, found: Found | None
    ) -> Found | None:
        # Never worse than what a person would write down. The search compares what it
        # has not proved good with the policy that takes seconds to find.
        if not self._kind.allows_everything:
            return found
        policy = best_policy(problem)
        if policy is None:
            return found
        name, schedule = policy
        seconds = replay(problem, schedule).makespan
        if found is not None and found.objective <= seconds:
            return found
        bound, taken = min(solution.bound, seconds), solution.seconds
        asked = name, solution.solver
        return Found(Status.POLICY, schedule, seconds, bound, taken, *asked)

    def _greedily(
        self, problem: Problem, solution: Solution, seconds: float
    ) -> Found | None:
        may_be_used = self._kind.allows_everything
        schedule = greedy(problem, seconds) if may_be_used else None
        if schedule is None:
            return None
        warn(
            "The solver returned no sound plan within "
            f"{self._solver.time_limit:g} s{_because(solution)}, so a greedy plan is "
            "used. A longer time "
            "limit may give a faster step: "
            "autotm.jit(..., solver=autotm.SolverOptions(time_limit=60))."
        )
        seconds = replay(problem, schedule).makespan
        bound, taken = solution.bound, solution.seconds
        solver = solution.solver
        return Found(Status.GREEDY, schedule, seconds, bound, taken, solver=solver)


def _at_rest(problem: Problem) -> Schedule:
    # Nothing moves; each segment runs by the fastest variant that fits then.
    device = replay(problem, Schedule()).device - np.array(problem.workspace)
    picks = []
    for k, others in sorted(problem.variants.items()):
        ways = [(problem.compute[k], problem.workspace[k])]
        ways += [(variant.seconds, variant.workspace) for variant in others]
        fitting = [
            (seconds, number)
            for number, (seconds, nbytes) in enumerate(ways)
            if device[k] + nbytes <= problem.device_limit
        ]
        if fitting and min(fitting)[1]:
            picks.append(Pick(k, min(fitting)[1]))
    return Schedule(picks=tuple(picks))


def _because(solution: Solution) -> str:
    return f" ({solution.note})" if solution.note else ""
