"""One order of a step, priced: the placement problem that it poses."""

from __future__ import annotations

import functools

from .errors import warn
from .formulate import formulate, live_bytes
from .machine import Machine, Target
from .profile import Costs, estimate_costs, with_measured_link
from .solve import PROGRAMS, Formulation, Problem, Schedule, replay
from .trace import Program


class Priced:
    """A program with what it costs on a target, and the problem that it poses.

    **Arguments:**

    - `program`: the step, in one order of its equations; kept as `traced`.
    - `target`: what to compile for.
    - `host_limit`: bytes of host memory.
    - `measured`: whether costs are timed on the target, which then is here.
    - `formulation`: which boolean program places the tensors.
    """

    def __init__(
        self,
        program: Program,
        target: Target,
        host_limit: int,
        measured: bool = False,
        formulation: Formulation = Formulation.JOINT,
    ):
        self.traced = program
        self._target, self._host_limit = target, host_limit
        self._measured, self._formulation = measured, formulation
        self._kind = PROGRAMS[formulation]

    @functools.cached_property
    def costs(self) -> Costs:
        """What the program costs on the target."""
        streams = self._kind.streams
        if self._measured:
            try:
                return estimate_costs(self.traced, self._target, True, streams)
            except Exception as error:  # noqa: BLE001 - the step can do without
                _warn_not_measured("The step's segments", error)
        return estimate_costs(self.traced, self._target, False, streams)

    @functools.cached_property
    def program(self) -> Program:
        """The step with those variants that can be had on the target."""
        names = {k: {n for n, _ in had} for k, had in self.costs.variants.items()}
        return self.traced.keeping(names)

    @functools.cached_property
    def machine(self) -> Machine:
        """The target's, with a link that was measured where that is possible."""
        machine = self._target.machine
        if self._measured and self._host_limit > 0:
            try:
                return with_measured_link(machine)
            except Exception as error:  # noqa: BLE001 - the step can do without
                _warn_not_measured("Copies to the host and back", error)
        return machine

    @functools.cached_property
    def problem(self) -> Problem:
        """The placement problem, without a limit on the device."""
        return self._formulated(self.costs, self.machine)

    def _formulated(self, costs: Costs, machine: Machine) -> Problem:
        nothing = float("inf")
        limits, carries = (nothing, self._host_limit), self._kind.carries
        found = formulate(self.traced, costs, machine, *limits, carries)
        return found if self._kind.recomputes else found.moved_only

    @functools.cached_property
    def sketch(self) -> Problem:
        """The same problem, with times that are only modelled."""
        if not self._measured:
            return self.problem
        costs = estimate_costs(self.traced, self._target)
        return self._formulated(costs, self._target.machine)

    @functools.cached_property
    def fixed_bytes(self) -> int:
        """Bytes of the arguments and results that are not part of the problem."""
        if not self.traced.carried:
            return _outer_bytes(self.traced)
        return _outer_bytes(self.traced) - self.sketch.carried_bytes

    @functools.cached_property
    def live_bytes(self) -> int:
        """As `cut_bytes`, without what segments need for themselves.

        Known as soon as the program is: nothing is priced for it.
        """
        return _outer_bytes(self.traced) + live_bytes(self.traced)

    @functools.cached_property
    def widest_bytes(self) -> int:
        """The most bytes that one segment reads and writes of what may be elsewhere.

        Known as soon as the program is, like `live_bytes`.
        """
        values, resident = self.traced.values, self.traced.resident
        touched = ({*s.body.reads, *s.body.writes} for s in self.traced.segments)
        widths = (sum(values[v].nbytes for v in some - resident) for some in touched)
        return max(widths, default=0)

    @functools.cached_property
    def floor_bytes(self) -> int:
        """Device bytes that no plan is below: what the widest segment takes."""
        return self.fixed_bytes + int(self.sketch.floor())

    @functools.cached_property
    def cut_bytes(self) -> int:
        """Device bytes of the program when it is only cut."""
        return self.fixed_bytes + replay(self.sketch, Schedule()).device_peak


def _outer_bytes(program: Program) -> int:
    """Bytes of the arguments and results of a step."""
    results, aliased = program.result_bytes()
    return program.argument_bytes() + results - aliased


def _warn_not_measured(what: str, error: Exception) -> None:
    warn(
        f"{what} could not be timed ({type(error).__name__}: {error}), so they are "
        "priced by the description of the nearest machine. measure=False does so "
        "without trying."
    )
