"""The conductor of the planning stages: trace, price, formulate, solve, check.

A `Planner` makes a first plan for one traced step, and a tighter one whenever XLA
turned out to need more than was predicted.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from . import compat
from .budget import Budget, format_bytes
from .compile import Evidence
from .errors import AutoTMWarning, BudgetError, InfeasibleBudget
from .formulate import formulate
from .machine import Target
from .plan import Plan
from .profile import Costs, cache, estimate_costs
from .solve import (
    Fetch,
    JointProgram,
    Problem,
    Recompute,
    Replay,
    Schedule,
    Solution,
    SolverOptions,
    Status,
    Store,
    greedy,
    offload_everything,
    packed_bytes,
    replay,
)
from .trace import Program, build_program


# XLA packs buffers a little less tightly than a sum of bytes.
_SLACK = 0.005

# What "min" gives up of the least memory to have a plan that is not needlessly slow.
_ROOM = 0.01

# How often a plan that packs badly is solved again with a lower limit.
_PACKING_ROUNDS = 2

# Cuts order a program and shorten lifetimes, so plain `jax.jit` hardly ever needs less
# than this part of a program that is only cut. Only then is it worth compiling to see.
_PLAIN_MAY_FIT = 0.9


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked for.

    - `target`: what to compile for.
    - `budget`, `host_budget`: as `parse_budget` returns them.
    - `solver`: what the solver may take.
    """

    target: Target
    budget: Budget
    host_budget: Budget
    solver: SolverOptions


class Planner:
    """Plans one traced step.

    **Arguments:**

    - `closed`: the closed jaxpr of the step.
    - `donated`: per flat argument, whether it is donated.
    - `request`: what was asked for.
    - `plain_bytes`: compiles the untouched step and returns its device bytes.
    """

    def __init__(
        self,
        closed: Any,
        donated: Sequence[bool],
        request: Request,
        plain_bytes: Callable[[], int],
    ):
        self.request = request
        self._closed, self._donated = closed, donated
        self._plain_bytes = plain_bytes
        self._program: Program | None = None
        self._costs: Costs | None = None
        self._joint: JointProgram | None = None

    def first(self) -> Plan:
        """The plan before anything planned has been compiled.

        **Returns:**

        A `Plan`. It is untouched if no limit is known or plain `jax.jit` keeps it.

        **Raises:**

        - `InfeasibleBudget`: if no plan meets the budget.
        """
        budget = self._budget_bytes()
        machine = self.request.target.machine
        if budget is None and self.request.budget != "min":
            note = f"the memory of {machine.name} is not known: name a budget"
            return Plan(None, Status.UNTOUCHED, note=note, machine=machine)
        program = self._analyse()
        fixed = self._fixed_bytes()
        if budget is not None and budget < fixed:
            raise InfeasibleBudget(
                f"The budget of {format_bytes(budget)} is less than the arguments and "
                f"results of the step alone, which take {format_bytes(fixed)} of "
                "device memory. Donate the state (donate_argnums) if it is not "
                "donated, or raise the budget.",
                least=None,
            )
        problem = self._problem(0)
        if not problem.tensors and (budget is None or self._plain_bytes() <= budget):
            return self._untouched(budget)  # nothing crosses a cut
        alone = replay(problem, Schedule())
        if budget is not None:
            cut = fixed + alone.device_peak
            may_fit = budget >= _PLAIN_MAY_FIT * cut or not program.segments
            if may_fit and self._plain_bytes() <= budget:
                return self._untouched(budget)
            limit = budget - fixed
            slack = int(_SLACK * budget)
            return self._plan(budget, limit, slack)
        # As little as possible, give or take what makes a fast plan findable.
        least = self._least(problem)
        limit = int(max(least.objective, problem.floor()) * (1 + _ROOM)) + 1
        return self._plan(None, limit, 0, least)

    def tighter(self, plan: Plan, evidence: Evidence) -> Plan:
        """A plan that needs less, after XLA needed more than the budget.

        **Arguments:**

        - `plan`: the plan that was compiled.
        - `evidence`: what XLA made of it.

        **Returns:**

        A `Plan` with a limit lowered by what was missing.

        **Raises:**

        - `InfeasibleBudget`: if that cannot be had.
        """
        assert plan.budget is not None and plan.problem is not None
        missing = evidence.device_bytes - plan.budget
        assert plan.replay is not None
        used = min(plan.problem.device_limit, plan.replay.device_peak)
        slack = int(_SLACK * plan.budget) // 2
        return self._plan(plan.budget, int(used) - missing - slack, 0)

    def untouched_if_smaller(self, plan: Plan, evidence: Evidence) -> Plan:
        """For `"min"`: the untouched step where it needs no more than the plan does."""
        assert plan.problem is not None
        if self.request.target.machine.platform == "cpu":
            return plan  # where the compiler drops cuts, its bytes judge nothing
        cut = self._fixed_bytes() + replay(plan.problem, Schedule()).device_peak
        may_be_less = evidence.device_bytes >= _PLAIN_MAY_FIT * cut
        if may_be_less and self._plain_bytes() <= evidence.device_bytes:
            return self._untouched(None)
        return plan

    def _untouched(self, budget: int | None) -> Plan:
        machine = self.request.target.machine
        nbytes = self._plain_bytes()
        status = Status.UNTOUCHED
        return Plan(budget, status, device_bytes=nbytes, machine=machine)

    def _budget_bytes(self) -> int | None:
        budget = self.request.budget
        if budget is None:
            return self.request.target.machine.device_bytes or None
        if isinstance(budget, float):
            return int(budget * self._plain_bytes())
        if isinstance(budget, int):
            return budget
        return None

    def _note(self) -> str:
        if compat.has_ordered_effects(self._closed):
            return "nothing is moved: the step has ordered effects"
        if not self.request.target.machine.has_host_memory:
            return "nothing is moved: this backend has no pinned_host memory"
        return ""

    def _host_limit(self) -> int:
        if compat.has_ordered_effects(self._closed):
            return 0  # JAX cannot compile them together with moves to the host
        if not self.request.target.machine.has_host_memory:
            return 0
        budget = self.request.host_budget
        known = self.request.target.machine.host_bytes
        if isinstance(budget, int):
            return budget
        if budget is None:
            return known or 2**62
        raise BudgetError(
            f"host_budget is {budget!r}. Give bytes as an int, a size as "
            '"6GiB" or "500 MB", or None for what the host has.'
        )

    def _analyse(self) -> Program:
        if self._program is None:
            self._program = build_program(self._closed, self._donated)
            self._costs = estimate_costs(self._program, self.request.target)
        return self._program

    def _fixed_bytes(self) -> int:
        program = self._analyse()
        results, aliased = program.result_bytes()
        return program.argument_bytes() + results - aliased

    def _problem(self, limit: int) -> Problem:
        program, costs = self._analyse(), self._costs
        assert costs is not None
        machine = self.request.target.machine
        return formulate(program, costs, machine, limit, self._host_limit())

    def _program_of(self, problem: Problem) -> JointProgram:
        # The limit is a parameter of the solve, not of the program.
        if self._joint is None:
            self._joint = JointProgram(problem)
        return self._joint

    def _plan(
        self,
        budget: int | None,
        limit: int,
        slack: int,
        otherwise: Solution | None = None,
    ) -> Plan:
        problem = self._problem(max(0, limit - slack))
        solution = self._packed(problem, limit)
        if solution.schedule is None and slack:
            problem = dataclasses.replace(problem, device_limit=max(0, limit))
            solution = self._solve(problem)
        if otherwise is not None and not self._packs(problem, solution, limit):
            solution = otherwise
        if solution.schedule is None:
            assert budget is not None
            if self._plain_bytes() <= budget:
                return self._untouched(budget)
            solution = self._least(problem)
            if not self._packs(problem, solution, limit):
                raise self._infeasible(budget, problem)
        schedule = solution.schedule
        assert schedule is not None
        state = replay(problem, schedule)
        taken = packed_bytes(problem, state)
        program, fixed = self._analyse(), self._fixed_bytes()
        return Plan(
            budget,
            solution.status,
            schedule,
            note=self._note(),
            device_bytes=fixed + taken,
            host_bytes=state.host_peak,
            seconds=state.makespan,
            unconstrained_seconds=sum(problem.compute),
            gap=solution.gap,
            solve_seconds=solution.seconds,
            program=program,
            problem=problem,
            replay=state,
            costs=self._costs,
            machine=self.request.target.machine,
        )

    def _packed(self, problem: Problem, limit: int) -> Solution:
        """A plan whose allocation, not only its live bytes, is within a limit."""
        solution = self._solve(problem)
        for _ in range(_PACKING_ROUNDS):
            if solution.schedule is None or self._packs(problem, solution, limit):
                break
            over = self._allocation(problem, solution.schedule) - limit
            lower = max(0.0, problem.device_limit - over)
            problem = dataclasses.replace(problem, device_limit=lower)
            tighter = self._solve(problem)
            if tighter.schedule is None:
                break
            solution = tighter
        return solution

    def _packs(self, problem: Problem, solution: Solution, limit: int) -> bool:
        if solution.schedule is None:
            return False
        return self._allocation(problem, solution.schedule) <= limit

    def _allocation(self, problem: Problem, schedule: Schedule) -> int:
        return packed_bytes(problem, replay(problem, schedule))

    def _solve(self, problem: Problem) -> Solution:
        nothing = float("inf")
        if not replay(problem, Schedule()).faults:
            seconds = sum(problem.compute)
            return Solution(Status.OPTIMAL, Schedule(), seconds, seconds, 0.0)
        if problem.device_limit < problem.floor():
            return Solution(Status.INFEASIBLE, None, nothing, nothing, 0.0)
        key = cache.cache_key("plan", problem, self.request.solver)
        known = _read(cache.load("plan", key))
        if known is not None and not replay(problem, known.schedule).faults:
            return known
        if not problem.tensors:
            return Solution(Status.INFEASIBLE, None, nothing, nothing, 0.0)
        solution = self._program_of(problem).fastest(
            problem.device_limit, self.request.solver
        )
        faults: tuple[str, ...] = ("the solver found none",)
        if solution.schedule is not None:
            faults = replay(problem, solution.schedule).faults
        if faults and solution.status is not Status.INFEASIBLE:
            schedule = greedy(problem)
            if schedule is None:
                return dataclasses.replace(solution, schedule=None)
            warnings.warn(
                "The solver returned no sound plan within "
                f"{self.request.solver.time_limit:g} s ({faults[0]}), so a greedy "
                "plan is used. A longer time limit may give a faster step: "
                "autotm.jit(..., solver=autotm.SolverOptions(time_limit=60)).",
                AutoTMWarning,
                stacklevel=2,
            )
            seconds = replay(problem, schedule).makespan
            solution = dataclasses.replace(
                solution, status=Status.GREEDY, schedule=schedule, objective=seconds
            )
        if solution.schedule is not None:
            cache.store("plan", key, _write(solution, solution.schedule))
        return solution

    def _least(self, problem: Problem) -> _Known:
        """The plan whose allocation is smallest, however slow."""
        key = cache.cache_key("least", problem, self.request.solver)
        known = _read(cache.load("plan", key))
        if known is not None:
            return known
        free = dataclasses.replace(problem, device_limit=float("inf"))

        def taken(schedule: Schedule) -> float:
            state = replay(free, schedule)
            return float("inf") if state.faults else packed_bytes(free, state)

        solution = Solution(Status.OPTIMAL, None, 0.0, 0.0, 0.0)
        schedules = [Schedule(), offload_everything(problem)]
        if problem.tensors:
            solution = self._program_of(problem).least_memory(self.request.solver)
        if solution.schedule is not None:
            schedules.append(solution.schedule)
        best = min(schedules, key=taken)
        peak = float(taken(best))
        known = _Known(Status.OPTIMAL, best, peak, solution.bound, solution.seconds)
        cache.store("plan", key, _write(known, best))
        return known

    def _infeasible(self, budget: int, problem: Problem) -> InfeasibleBudget:
        solution = self._least(problem)
        state = replay(problem, solution.schedule)
        least = self._fixed_bytes() + int(solution.objective)
        least = min(least + int(_SLACK * least), self._plain_bytes())
        worst = int(state.device.argmax())
        lines = "\n".join(self._largest_alive(state, worst))
        return InfeasibleBudget(
            f"No plan keeps the step within {format_bytes(budget)} of device memory: "
            f"the least budget that works is about {format_bytes(least)} "
            f"({least} bytes).\n"
            f"The largest values alive at the tightest point, segment {worst} of "
            f"{problem.segments}:\n{lines}\n"
            "A smaller batch, a loss computed in chunks, or jax.checkpoint inside the "
            "largest layer lowers that point.",
            least=least,
        )

    def _largest_alive(self, state: Replay, segment: int) -> list[str]:
        program = self._analyse()
        alive = set(state.alive(segment))
        # What is fused into the segment's kernels is written there and nowhere else.
        equations = program.segments[segment].body.equations
        alive |= {v for e in equations for v in program.equations[e].outputs}
        alive -= program.resident
        ranked = sorted(alive, key=lambda v: -program.values[v].nbytes)[:6]
        return [
            f"  {format_bytes(program.values[v].nbytes):>12}  "
            f"{program.values[v].describe()}"
            for v in ranked
        ]


def _write(solution: Solution, schedule: Schedule) -> dict[str, Any]:
    return {
        "status": solution.status.name,
        "objective": solution.objective,
        "bound": solution.bound,
        "stores": [dataclasses.astuple(s) for s in schedule.stores],
        "fetches": [dataclasses.astuple(f) for f in schedule.fetches],
        "recomputes": [dataclasses.astuple(r) for r in schedule.recomputes],
    }


@dataclasses.dataclass(frozen=True)
class _Known(Solution):
    """A solution that has a schedule."""

    schedule: Schedule  # pyright: ignore[reportIncompatibleVariableOverride]


def _read(entry: Any) -> _Known | None:
    try:
        schedule = Schedule(
            tuple(Store(*s) for s in entry["stores"]),
            tuple(Fetch(*f) for f in entry["fetches"]),
            tuple(Recompute(*r) for r in entry["recomputes"]),
        )
        status = Status[entry["status"]]
        return _Known(status, schedule, entry["objective"], entry["bound"], 0.0)
    except (TypeError, KeyError):
        return None
