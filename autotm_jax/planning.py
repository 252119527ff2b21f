"""The conductor of the planning stages: trace, price, formulate, solve, check.

A `Planner` makes a first plan for one traced step, and a tighter one whenever XLA
turned out to need more than was predicted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import compat
from .attempts import Attempts
from .budget import format_bytes
from .candidate import Candidate
from .compile import Evidence
from .errors import InfeasibleBudget, PlanFileError
from .found import Found
from .least import least_plan
from .machine import PINNED_CAP
from .orders import Orders
from .plain import Plain
from .plan import Plan
from .planfile import Outline, Saved
from .request import Request
from .solve import Schedule, Status, replay
from .trace import Divide


# XLA packs buffers a little less tightly than a sum of bytes.
_SLACK = 0.005

# A plan that is changed a little to need less is taken if it is slower by this factor.
_NEARBY = 1.1

# Cuts order a program and shorten lifetimes, so plain `jax.jit` hardly ever needs less
# than this part of a program that is only cut. Only then is it worth compiling to see.
_PLAIN_MAY_FIT = 0.9

# A plan that takes no more than this many times the step without a limit is not worth
# pricing another order for.
_NEARLY_FREE = 1.05

# The order as traced holds at least this part of what the usual one does.
_ORDERS = 0.7


class Planner:
    """Plans one traced step.

    **Arguments:**

    - `closed`: the closed jaxpr of the step.
    - `donated`: per flat argument, whether it is donated.
    - `request`: what was asked for.
    - `plain`: what the untouched step needs.
    - `carried`: by the number of an argument, that of the result which takes its place
        in the next call.
    - `divide`: for a step on a mesh, asks XLA how its values are divided.
    - `is_shared`: whether it is planned for devices of several processes.
    """

    def __init__(
        self,
        closed: Any,
        donated: Sequence[bool],
        request: Request,
        plain: Plain,
        carried: Mapping[int, int] | None = None,
        divide: Divide | None = None,
        is_shared: bool = False,
    ):
        self.request = request
        self._closed, self._plain = closed, plain
        self.carried, self.is_shared = carried or {}, is_shared
        step = closed, donated, request, self.carried
        self.orders = Orders(*step, divide, is_shared)
        self._last: tuple[Found, Candidate] | None = None
        self._attempts = Attempts()

    def first(self) -> Plan:
        """The plan before anything planned has been compiled.

        **Returns:**

        A `Plan`. It is untouched if no limit is known or plain `jax.jit` keeps it.

        **Raises:**

        - `InfeasibleBudget`: if no plan meets the budget.
        """
        budget = self._budget_bytes()
        machine = self.request.target.machine
        if budget is None and not self.request.is_least:
            note = f"the memory of {machine.name} is not known: name a budget"
            return Plan(None, Status.UNTOUCHED, note=note, machine=machine)
        outline = self.orders.outline
        fixed = outline.fixed_bytes
        if budget is not None and budget < fixed:
            raise InfeasibleBudget(
                f"The budget of {format_bytes(budget)} is less than the arguments and "
                "results of the step alone, which take "
                f"{format_bytes(fixed)} of device memory. Donate the state "
                "(donate_argnums) if it is not donated, let it move (move_state, "
                "host_budget) if it may not, or raise the budget.",
                least=None,
            )
        # A budget that looks loose is tried out before anything is priced.
        if budget is not None and budget >= outline.live_bytes:
            if self._plain.to_run() <= budget:
                return self._untouched(budget)
        usual = self.orders.usual
        nothing = not usual.sketch.tensors  # crosses a cut
        if nothing and not usual.sketch.variants:
            if budget is None or self._plain.nbytes <= budget:
                return self._untouched(budget)
        if budget is None:
            self._last, plan = least_plan(usual, self._note())
            return plan
        if self._plain_may_fit(budget) and self._plain.nbytes <= budget:
            return self._untouched(budget)
        return self._within(budget, budget - usual.fixed_bytes, int(_SLACK * budget))

    def applied(self, saved: Saved) -> Plan:
        """A plan that was found before.

        **Arguments:**

        - `saved`: the plan.

        **Returns:**

        A `Plan`, with what it takes here.

        **Raises:**

        - `PlanFileError`: if it is the plan of another program.
        """
        found, outline = saved.found, saved.outline
        budget = self._budget_bytes()
        if found is None or outline is None:
            nbytes = self._plain.to_run()
            if budget is not None and nbytes > budget:
                raise PlanFileError(
                    f"{saved.name} leaves the step as it is, which takes "
                    f"{format_bytes(nbytes)}: more than the budget of "
                    f"{format_bytes(budget)}. Plan the step again."
                )
            note = f"{saved.name} leaves the step as it is"
            return dataclasses.replace(self._untouched(budget), note=note)
        candidate = self.orders.of(outline.order, outline.parts)
        picks = found.schedule.picks
        here = Outline.of(candidate.program, outline.formulation, picks)
        differs = outline.difference(here)
        if differs:
            now = compat.JAX_VERSION
            versions = f" (it was made with JAX {saved.jax}, and this is {now})"
            raise PlanFileError(
                f"{saved.name} does not fit this step: {differs}"
                f"{'' if saved.jax == now else versions}. Plan the step again."
            )
        try:
            faults = replay(candidate.problem, found.schedule).faults
        except (IndexError, ValueError) as error:
            faults = (f"It names what there is not ({error}).",)
        for fault in faults:
            raise PlanFileError(
                f"{saved.name} does not fit this step. {fault} Plan the step again."
            )
        limit = 0 if budget is None else budget - candidate.fixed_bytes
        plan = candidate.plan(found, budget, limit, self._note())
        assert plan.device_bytes is not None
        if budget is None or plan.device_bytes <= budget:
            return plan
        note = f"it is predicted to take more than the budget of {format_bytes(budget)}"
        note = "; ".join(filter(None, (plan.note, note)))
        return dataclasses.replace(plan, note=note)

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
        assert plan.replay is not None and plan.device_bytes is not None
        missing = evidence.device_bytes - plan.budget
        missing += int(_SLACK * plan.budget) // 2
        used = min(plan.problem.device_limit, plan.replay.device_peak)
        limit = int(used) - missing
        if self._last is None:
            return self._within(plan.budget, limit, 0)
        # Most often its buffers pack otherwise than predicted: one like it fits.
        last, candidate = self._last
        packed = plan.device_bytes - candidate.fixed_bytes - missing
        near = candidate.nearby(last, packed)
        if near is None:
            return self._within(plan.budget, limit, 0)
        found = candidate.plan(near, plan.budget, packed, self._note())
        if near.objective > _NEARBY * last.objective:
            with contextlib.suppress(InfeasibleBudget):
                other = self._within(plan.budget, limit, 0)
                assert found.seconds is not None
                if other.seconds is not None and other.seconds < found.seconds:
                    return other
        self._last = near, candidate
        return found

    def another(self, plan: Plan, evidence: Evidence, number: int) -> Plan | None:
        """For `"min"`: what to compile if XLA needed much more than was predicted.

        **Arguments:**

        - `plan`: the plan that was compiled.
        - `evidence`: what XLA made of it.
        - `number`: which other one is to be tried, from 1; 0 if none is.

        **Returns:**

        A `Plan`, or `None` if this one stands.
        """
        if self.request.target.machine.platform != "cuda" or self.is_shared:
            return None  # bytes judge nothing there, or other processes must agree

        def other() -> Plan | None:
            if self._last is None or not number or plan.device_bytes is None:
                return None
            last, candidate = self._last
            limit = plan.device_bytes - candidate.fixed_bytes
            found = candidate.another(last, limit, number)
            if found is None:
                return None
            return candidate.plan(found, None, limit, self._note())

        return self._attempts.following(plan, evidence.device_bytes, other)

    def untouched_if_smaller(self, plan: Plan, evidence: Evidence) -> Plan:
        """For `"min"`: the untouched step where it needs no more than the plan does."""
        if self.request.target.machine.platform == "cpu":
            return plan  # what was moved is counted there, so bytes judge nothing
        may_be_less = self._plain_may_fit(evidence.device_bytes)
        if may_be_less and self._plain.nbytes <= evidence.device_bytes:
            return self._untouched(None)
        return plan

    def _plain_may_fit(self, nbytes: int) -> bool:
        first = self.orders.usual
        if isinstance(self.request.budget, float) or not first.traced.segments:
            return True  # compiled anyway, or nothing to judge by
        if self._plain.known is not None and not self.is_shared:
            return True  # no need to guess; another process may not know
        usual = _PLAIN_MAY_FIT * first.cut_bytes
        if nbytes < _ORDERS * usual:
            return False
        if nbytes >= usual:
            return True
        least = min(c.cut_bytes for c in self.orders)
        return nbytes >= _PLAIN_MAY_FIT * least

    def _untouched(self, budget: int | None) -> Plan:
        machine = self.request.target.machine
        nbytes = self._plain.nbytes
        return Plan(
            budget,
            Status.UNTOUCHED,
            device_bytes=nbytes,
            machine=machine,
            analysis=functools.partial(self._analysed, budget),
        )

    def _analysed(self, budget: int | None) -> Plan:
        """The plan that leaves the step as it is, priced."""
        candidate = self.orders.usual
        seconds = replay(candidate.problem, Schedule()).makespan
        found = Found(Status.UNTOUCHED, Schedule(), seconds, seconds, 0.0)
        return candidate.plan(found, budget, float("inf"), "")

    def _budget_bytes(self) -> int | None:
        budget = self.request.budget
        if budget is None:
            return self.request.target.machine.device_bytes or None
        if isinstance(budget, float):
            needed = self._plain.nbytes if budget < 1 else self._plain.to_run()
            return int(budget * needed)
        if isinstance(budget, int):
            return budget
        return None

    def _note(self) -> str:
        if compat.has_ordered_effects(self._closed):
            return "nothing is moved: the step has ordered effects"
        if not self.request.target.machine.has_host_memory:
            return "nothing is moved: this backend has no pinned_host memory"
        asked = self.request.host_budget
        if asked is not None and asked > self.host_limit:
            there = format_bytes(self.host_limit)
            return f"there is {there} of pinned host memory (see {PINNED_CAP})"
        return ""

    @property
    def least_bytes(self) -> int:
        """The least device bytes that the step can do with, as far as was found."""
        return self.orders.usual.least_bytes

    def argument_bytes(self, numbers: Iterable[int]) -> int:
        """Device bytes of the flat arguments with these numbers."""
        return self.orders.usual.traced.argument_bytes(numbers)

    @property
    def live_bytes(self) -> int:
        """Device bytes that are alive at once if nothing is planned."""
        return self.orders.outline.live_bytes

    @property
    def host_limit(self) -> int:
        """Bytes of pinned host memory that a plan may take."""
        return self.orders.host_limit

    def _within(self, budget: int, limit: int, slack: int) -> Plan:
        """A plan for a budget whose temporaries keep a limit.

        In the usual order if it costs next to nothing there, or the other one cannot be
        faster; else in the faster one.
        """
        best: tuple[Found, Candidate] | None = None
        rank = True, float("inf")
        for candidate in self.orders:
            packs_badly, seconds = rank
            if not packs_badly and not candidate.may_beat(seconds, limit):
                continue
            found = candidate.within(limit, slack)
            if found is None:
                continue
            here = not candidate.nearly_packs(found, limit), found.objective
            if best is None or here < rank:
                best, rank = (found, candidate), here
            near = _NEARLY_FREE * candidate.unconstrained
            done = found.status in (Status.OPTIMAL, Status.REPACKED)
            if done and found.objective <= near:
                break
        if best is not None:
            best = self.orders.in_parts(*best, limit, slack)
        if best is None:
            if self._plain.nbytes <= budget:
                return self._untouched(budget)
            candidate = min(self.orders, key=lambda c: c.least_bytes)
            best = candidate.least, candidate
            if candidate.least.objective > limit:
                raise self._infeasible(budget, limit, candidate)
        self._last = found, candidate = best
        return candidate.plan(found, budget, limit, self._note())

    def _infeasible(
        self, budget: int, limit: int, candidate: Candidate
    ) -> InfeasibleBudget:
        # A limit that was lowered is lower by what XLA needs beyond a plan. The plan
        # that needs least will need that, too.
        beyond = max(0, budget - candidate.fixed_bytes - limit)
        said = f", with {format_bytes(beyond)} that XLA needs beyond its plan"
        least = candidate.least_bytes + beyond
        least = min(least + int(_SLACK * least), self._plain.nbytes)
        return InfeasibleBudget(
            f"No plan keeps the step within {format_bytes(budget)} of device memory: "
            f"the least budget that works is about {format_bytes(least)} "
            f"({least} bytes){said if beyond else ''}.\n"
            f"{candidate.tightest_point()}\n"
            "A smaller batch, a loss computed in chunks, or jax.checkpoint inside the "
            "largest layer lowers that point.",
            least=least,
        )
