"""The orders in which a step may run, each of them a `Candidate`.

Gradients of weights come as JAX traced them, or after those of the inputs, which takes
less time and more memory. In either order loops may be cut in two where one plan for
all of their iterations would be too coarse.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import compat
from .candidate import Candidate
from .found import Found
from .inside import Inside
from .request import UNLIMITED, Request
from .shared import SharedCandidate
from .solve import PROGRAMS
from .trace import Divide, Order, Program, build_program, is_conditional


# A conditional is looked into if a branch holds this part of what the step does.
_INSIDE = 1 / 16

# An order in which no segment touches more than this part of what one touches in the
# other is worth pricing, too, for as little memory as possible.
_NARROWER = 0.95

# A plan that takes no more than this many times that in which loops are not cut is not
# worth cutting them.
_NOT_WORTH_PARTS = 1.01


class Orders:
    """The candidates for the plan of one traced step, made when they are asked for.

    **Arguments:**

    - `closed`, `donated`, `request`, `carried`, `divide`, `is_shared`: as a `Planner`
        takes them.
    """

    def __init__(
        self,
        closed: Any,
        donated: Sequence[bool],
        request: Request,
        carried: Mapping[int, int],
        divide: Divide | None,
        is_shared: bool,
    ):
        self._closed, self._donated, self._request = closed, donated, request
        self._carried, self._divide, self._is_shared = carried, divide, is_shared
        self._outlines: dict[Order, Candidate] = {}
        self._parted: dict[tuple[Order, tuple[tuple[int, int], ...]], Candidate] = {}

    def __iter__(self) -> Iterator[Candidate]:
        yield self.usual
        if self._other is not None:
            yield self._other

    @functools.cached_property
    def outline(self) -> Candidate:
        """The usual order, with no conditional looked into.

        Nothing is priced for what is asked of it.
        """
        return self._outlined(self._usual_order)

    @functools.cached_property
    def usual(self) -> Candidate:
        """The order that is priced first."""
        equations = self.outline.traced.equations
        if not any(is_conditional(e.eqn) for e in equations):
            return self.outline
        if self._divide is not None:
            return self.outline  # how branches are divided is not known
        return self.of(self._usual_order)

    @functools.cached_property
    def _other(self) -> Candidate | None:
        if self._request.is_least:
            return None
        other = self.of(Order.AS_TRACED)
        same = other.traced.signature == self.usual.traced.signature
        return None if same else other

    @functools.cached_property
    def _usual_order(self) -> Order:
        if not self._request.is_least:
            return Order.WEIGHTS_LAST
        # The order as traced holds less while a gradient is computed, and takes longer.
        # But where attention is written out, it holds more values at once that are as
        # large as the weights of that.
        traced, last = map(self._outlined, (Order.AS_TRACED, Order.WEIGHTS_LAST))
        if last.widest_bytes >= _NARROWER * traced.widest_bytes:
            return Order.AS_TRACED
        is_less = last.floor_bytes < traced.floor_bytes
        return Order.WEIGHTS_LAST if is_less else Order.AS_TRACED

    def _outlined(self, order: Order) -> Candidate:
        if order not in self._outlines:
            self._outlines[order] = self.of(order, looks_inside=False)
        return self._outlines[order]

    def of(
        self,
        order: Order,
        parts: Mapping[int, int] | None = None,
        looks_inside: bool = True,
    ) -> Candidate:
        """One of them, made anew.

        **Arguments:**

        - `order`: of the gradients.
        - `parts`: by loop, how many iterations its first part has.
        - `looks_inside`: whether plans are made for the branches of conditionals.
        """
        is_known = looks_inside and self._divide is None
        choose = self._inside if is_known else None
        step = self._closed, self._donated, order, self._sees_loops
        rest = parts, self._carried, choose, self._divide, self._platform
        return self._priced(build_program(*step, *rest))

    def in_parts(
        self, found: Found, candidate: Candidate, limit: int, slack: int
    ) -> tuple[Found, Candidate]:
        """A faster plan with loops cut in two, or the same.

        **Arguments:**

        - `found`, `candidate`: the plan, and what it is of.
        - `limit`, `slack`: as `Candidate.within` takes them.
        """
        if found.objective <= _NOT_WORTH_PARTS * candidate.unconstrained:
            return found, candidate
        parts = candidate.parts(limit - slack)
        if not parts:
            return found, candidate
        order = Order.AS_TRACED if candidate is self._other else self._usual_order
        key = order, tuple(sorted(parts.items()))
        if key not in self._parted:
            self._parted[key] = self.of(order, parts)
        parted = self._parted[key].within(limit, slack)
        if parted is None or parted.objective >= found.objective:
            return found, candidate
        return parted, self._parted[key]

    @property
    def host_limit(self) -> int:
        """Bytes of pinned host memory that a plan may take."""
        if compat.has_ordered_effects(self._closed):
            return 0  # JAX cannot compile them together with moves to the host
        target, budget = self._request.target, self._request.host_budget
        if not target.machine.has_host_memory:
            return 0
        there = target.machine.host_bytes or UNLIMITED
        if budget is None:
            return there
        # Of a machine that is not here, the user may know more than we do.
        is_known = target.is_present and budget != UNLIMITED
        return min(budget, there) if is_known else budget

    @functools.cached_property
    def _inside(self) -> Inside:
        return Inside(self._branch, _INSIDE * self.outline.live_bytes)

    def _branch(self, closed: Any) -> Candidate:
        """What a branch of a conditional is as a step of its own."""
        donated = [False] * len(closed.jaxpr.invars)
        order, loops = Order.AS_TRACED, self._sees_loops
        inside, platform = self._inside, self._platform
        program = build_program(
            closed, donated, order, loops, choose=inside, platform=platform
        )
        return self._priced(program)

    @property
    def _platform(self) -> str | None:
        return self._request.target.platform

    @property
    def _sees_loops(self) -> bool:
        return PROGRAMS[self._request.formulation].sees_loops

    def _priced(self, program: Program) -> Candidate:
        request, limit = self._request, self.host_limit
        rest = request.solver, request.measured, request.formulation
        kind = SharedCandidate if self._is_shared else Candidate
        return kind(program, request.target, limit, *rest)
