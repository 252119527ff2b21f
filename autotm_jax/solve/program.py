"""A boolean program over the tensors of a problem, whatever its formulation."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from .answer import INFEASIBLE, MIB, MS, Answer
from .checker import Replay, replay
from .columns import Columns
from .deadline import Deadline
from .improve import descend
from .model import Model
from .problem import Problem
from .rows import Rows
from .schedule import Pick, Schedule
from .search import Search
from .solution import Solution, SolverOptions, Status
from .symmetry import tied


# A limit below this many times the floor may be one that no plan keeps.
_TIGHT = 2.0

# Wall time for a relaxation that no search waits for.
_BOUND_SECONDS = 10.0

# The part of the time limit for the least memory of all.
_LEAST_PART = 0.4


class BooleanProgram(abc.ABC):
    """The program of a problem, built once, solved at any limit.

    **Arguments:**

    - `problem`: the placement problem. Its device limit is not used.
    """

    # What the problem of a step offers it: kernels that find operands, or leave
    # results, in host memory; and recipes to compute tensors again.
    streams: ClassVar[bool] = True
    recomputes: ClassVar[bool] = False

    # Whether it knows tensors that cross from loop to loop.
    sees_loops: ClassVar[bool] = False

    # Whether it places what is carried from step to step.
    carries: ClassVar[bool] = False

    # Whether it has a column for whatever a schedule may do, give or take windows: if
    # so, plans made without it (policies, local searches) are plans of its kind.
    allows_everything: ClassVar[bool] = False

    def __init__(self, problem: Problem):
        self.problem = dataclasses.replace(problem, device_limit=float("inf"))
        self.columns = self.columns_of(problem)
        self.relaxed = Model(self.columns, self.timing, boolean=False)
        # What was found for some limit is where a search for a higher one begins.
        self._known: list[Schedule] = []
        self._least_bound: float | None = None
        self._least_tried = 0.0  # seconds, in vain

    @functools.cached_property
    def boolean(self) -> Model:
        """The program itself, as it is solved best where there is much to decide."""
        return Model(self.columns, self.timing, boolean=True, summed=True)

    @functools.cached_property
    def sparse(self) -> Model:
        """The same, as it is solved best where next to nothing is left to decide."""
        return Model(self.columns, self.timing, boolean=True)

    @functools.cached_property
    def tie(self) -> sp.csr_array:
        """Which decision decides each column if alike layers are decided together."""
        return tied(self.columns)

    @functools.cached_property
    def alike(self) -> Model:
        """The program with these decisions."""
        return Model(self.columns, self.timing, boolean=True, tie=self.tie)

    def decoded(self, x: np.ndarray, picks: tuple[Pick, ...]) -> Schedule:
        """The schedule of a 0/1 vector of columns."""
        return dataclasses.replace(self.columns.decode(x), picks=picks)

    def rounded(self, relaxed: Answer) -> Schedule:
        """Every tensor on the path that carries most of it. It may break any limit."""
        x = np.zeros(len(self.columns.edges))
        for tensor in range(len(self.problem.tensors)):
            x[self.columns.main_path(tensor, relaxed.x)] = 1.0
        return self.decoded(x, relaxed.picks)

    def rounding(self, limit: float, options: SolverOptions) -> Schedule | None:
        """The relaxation rounded to whole tensors, and repaired by a descent.

        **Arguments:**

        - `limit`: device bytes of temporaries.
        - `options`: what the solver may take.

        **Returns:**

        A `Schedule` that passes the checker, or `None`.
        """
        relaxed = self.relaxed.run(limit, options)
        if relaxed is None or relaxed is INFEASIBLE:
            return None
        problem = dataclasses.replace(self.problem, device_limit=limit)
        return descend(problem, self.rounded(relaxed), options.time_limit)

    def built(self) -> list[Model]:
        """The boolean models that have been needed so far."""
        names = ("sparse", "boolean", "alike")
        return [self.__dict__[name] for name in names if name in self.__dict__]

    @abc.abstractmethod
    def columns_of(self, problem: Problem) -> Columns:
        """The networks of the formulation."""

    @abc.abstractmethod
    def timing(self, rows: Rows) -> tuple[list[Any], Any]:
        """The rows that define the makespan, and the makespan, in milliseconds."""

    def seconds_of(self, schedule: Schedule, replayed: Replay) -> float:
        """Seconds of the step as the objective of the program has them.

        **Arguments:**

        - `schedule`, `replayed`: a plan, and what the checker says of it.

        **Returns:**

        Seconds.
        """
        return replayed.makespan

    def fastest(self, limit: float, options: SolverOptions) -> Solution:
        """The fastest plan within a device limit.

        **Arguments:**

        - `limit`: device bytes of temporaries.
        - `options`: what the solver may take.

        **Returns:**

        A `Solution`; its objective is in seconds.
        """
        deadline = Deadline(options.time_limit)
        # That a relaxation is infeasible takes a solver longer to see than it takes
        # to find the least memory of all.
        is_tight = limit < _TIGHT * self.problem.floor()
        seconds = _LEAST_PART * options.time_limit
        if is_tight and limit < self.least_bound(seconds) * (1 - 1e-6) - 1:
            nothing, taken = float("inf"), deadline.taken()
            return Solution(Status.INFEASIBLE, None, nothing, nothing, taken)
        found = Search(self, limit, options, deadline, self._fastest_known(limit)).run()
        self._remember(found)
        return found

    def _fastest_known(self, limit: float) -> Schedule | None:
        problem = dataclasses.replace(self.problem, device_limit=limit)
        sound: list[tuple[float, int]] = []
        for number, known in enumerate(self._known):
            state = replay(problem, known)
            if not state.faults:
                sound.append((self.seconds_of(known, state), number))
        return self._known[min(sound)[1]] if sound else None

    def _remember(self, found: Solution) -> None:
        if found.schedule is not None and found.schedule not in self._known:
            self._known.append(found.schedule)

    def least_bound(self, seconds: float = _BOUND_SECONDS) -> float:
        """Device bytes of temporaries that no path of the networks goes below.

        **Arguments:**

        - `seconds`: wall time to spend at most.

        **Returns:**

        Bytes; the problem's floor if there was too little time.
        """
        if self._least_bound is None and seconds > self._least_tried:
            answer = self.relaxed.run(None, SolverOptions(seconds))
            self._least_tried = seconds
            if answer is not None and answer is not INFEASIBLE:
                self._least_bound = answer.bound * MIB
        known = self._least_bound
        return float(self.problem.floor()) if known is None else known

    def relaxation(self, limit: float) -> float | None:
        """Seconds of the step if tensors could be divided: what plans cannot reach.

        **Arguments:**

        - `limit`: device bytes of temporaries.

        **Returns:**

        Seconds, infinite if even so nothing keeps the limit; or `None` if the solver
        took too long.
        """
        answer = self.relaxed.run(limit, SolverOptions(_BOUND_SECONDS))
        return None if answer is None else answer.objective / MS

    def kept(self, limit: float, options: SolverOptions) -> dict[int, float]:
        """Which part of each tensor would stay, if tensors could be divided.

        **Arguments:**

        - `limit`: device bytes of temporaries.
        - `options`: what the solver may take.

        **Returns:**

        By position of a tensor that crosses from loop to loop, the part of it that is
        kept on the device in a stack; nothing if the solver finds no division.
        """
        answer = self.relaxed.run(limit, options)
        if answer is None or answer is INFEASIBLE:
            return {}
        return {t: float(answer.x[c]) for t, c in self.columns.stacked.items()}

    def least_memory(self, options: SolverOptions) -> Solution:
        """The plan with the smallest device peak, however slow.

        **Arguments:**

        - `options`: what the solver may take.

        **Returns:**

        A `Solution`; its objective is in bytes.
        """
        found = Search(self, None, options).run()
        self._remember(found)
        return found
