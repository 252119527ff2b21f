"""What was decided, what it is expected to cost, and what became of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from .emit import carried_on_host, unread
from .errors import PlanFileError, ReportError
from .machine import Machine
from .planfile import Saved, dumped, loaded
from .profile import Costs
from .report.files import write_file
from .solve import Formulation, Problem, Replay, Schedule, Status
from .trace import Branch, Program


@dataclasses.dataclass(frozen=True)
class Realised:
    """What XLA made of a plan.

    - `device_bytes`, `host_bytes`: what the executable reserves.
    - `copies`: copies between the memories in the scheduled HLO; `None` where the
        backend does not show them.
    - `rounds`: how many plans were compiled until one kept the budget.
    """

    device_bytes: int
    host_bytes: int
    copies: int | None
    rounds: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A decision about every large value of a step.

    - `budget`: device bytes, or `None` if no limit is known.
    - `status`: how the plan was found; its value is a sentence.
    - `note`: what else the user should know, or an empty string.
    - `formulation`: which boolean program decided.
    - `schedule`: what moves and what is computed again, and when.
    - `device_bytes`, `host_bytes`: predicted for the executable, arguments and results
        included; `None` if nothing was predicted (an untouched step).
    - `seconds`, `unconstrained_seconds`: predicted for the step, and without a limit.
    - `simulated_seconds`: of the step, if its copies queue up on two engines and are
        played event by event, where the prediction spreads them over what runs beside.
    - `bound`: the least seconds of the step that the boolean program may allow, as far
        as was proved. It offers a few lengths for each copy, so that a local search may
        find less. `None` for the plan that needs least, where no time was asked for.
    - `gap`, `solver`, `solve_seconds`: what that leaves open, as a part of the plan's
        own objective; which solver was asked, with its version; and how long it took,
        nothing if the answer was in the cache.
    - `program`, `problem`, `replay`, `costs`, `machine`: what the figures are made of;
        `None` for a step that was not analysed.
    - `realised`: what XLA made of it; `None` before it is compiled.
    - `saved`: the file that a plan was loaded from. Until it is applied, it has figures
        and a schedule only.
    - `analysis`: for a step that is left as it is, prices it: the same plan, with what
        it takes to explain and to draw it.
    """

    budget: int | None
    status: Status
    schedule: Schedule = Schedule()
    note: str = ""
    device_bytes: int | None = None
    host_bytes: int = 0
    seconds: float | None = None
    unconstrained_seconds: float | None = None
    simulated_seconds: float | None = None
    bound: float | None = None
    gap: float = 0.0
    solver: str = ""
    solve_seconds: float = 0.0
    program: Program | None = dataclasses.field(default=None, repr=False)
    problem: Problem | None = dataclasses.field(default=None, repr=False)
    replay: Replay | None = dataclasses.field(default=None, repr=False)
    costs: Costs | None = dataclasses.field(default=None, repr=False)
    machine: Machine | None = dataclasses.field(default=None, repr=False)
    realised: Realised | None = None
    formulation: Formulation = Formulation.JOINT
    saved: Saved | None = dataclasses.field(default=None, repr=False)
    analysis: Callable[[], Plan] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    @property
    def is_untouched(self) -> bool:
        """Whether the step is emitted as it was traced."""
        return self.status in (Status.UNTOUCHED, Status.UNSUPPORTED)

    @property
    def copies(self) -> int:
        """How many copies between the memories the emitted step needs.

        With those in conditionals that run by plans of their own.
        """
        if self.program is None:
            return 0
        left_out = unread(self.program, self.schedule)
        branches = zip(self.schedule.picks, self.picked, strict=True)
        inside = sum(
            branch.planned.copies
            for pick, branch in branches
            if branch.planned is not None and pick.segment not in left_out.segments
        )
        return self.schedule.copies - len(left_out.copies) + inside

    @property
    def picked(self) -> tuple[Branch, ...]:
        """The branches by which segments run, if not by the default."""
        if self.program is None:
            return ()
        segments = self.program.segments
        return tuple(
            segments[p.segment].body.branches[p.variant - 1]
            for p in self.schedule.picks
        )

    @property
    def moved_bytes(self) -> int:
        """Bytes stored to the host in a step, each value once."""
        return self._bytes_of(self.schedule.moved)

    @property
    def recomputed_bytes(self) -> int:
        """Bytes of the values computed again in a step."""
        return sum(self._bytes_of({r.value}) for r in self.schedule.recomputes)

    @property
    def on_host(self) -> frozenset[int]:
        """Numbers of the flat arguments that are in host memory between steps."""
        if self.program is None:
            return frozenset()
        there = carried_on_host(self.program, self.schedule)
        arguments = enumerate(self.program.arguments)
        return frozenset(number for number, value in arguments if value in there)

    def analysed(self) -> Plan:
        """The plan with what it takes to explain and to draw it.

        A step that is left as it is has not been priced: that is done now.

        **Raises:**

        - `ReportError`: if that cannot be had.
        """
        if self.program is not None and self.problem is not None:
            return self
        if self.saved is not None:
            raise ReportError(
                f"The plan in {self.saved.name} is not applied yet. Give it to "
                "autotm.jit(..., plan=plan), and use the .plan(...) of that step."
            )
        if self.analysis is None:
            why = self.note or self.status.value
            raise ReportError(f"There is nothing to draw: {why}.")
        return self.analysis()

    def _bytes_of(self, values: Collection[int]) -> int:
        if self.program is None:
            return 0
        return sum(map(self.program.nbytes_of, values))

    def explain(self) -> str:
        """Why the plan is as it is, in a few screens of text.

        What the limit leaves and where it is tightest; what more and what less memory
        would be worth; and for each class of values, layer by layer, what was decided
        and what the step would gain or lose if one of them went another way. Modelled,
        as the plan itself is.

        **Returns:**

        Text.
        """
        from .report.explain import explanation

        return explanation(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan to a file: JSON, with names beside the numbers.

        !!! Example

            ```python
            train_step.plan(state, batch).save("plan.json")
            ```

            In another process, perhaps on another machine:

            ```python
            plan = autotm.Plan.load("plan.json")
            train_step = autotm.jit(step, plan=plan, donate_argnums=0)
            ```

        **Arguments:**

        - `path`: a file to write.

        **Raises:**

        - `PlanFileError`: if the step could not be planned.
        - `ReportError`: if the file cannot be written.
        """
        write_file(Path(path), dumped(self).encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Reads a plan from a file that `Plan.save` has written.

        **Arguments:**

        - `path`: the file.

        **Returns:**

        A `Plan` to give to `autotm_jax.jit`, which checks that it fits the step.

        **Raises:**

        - `PlanFileError`: if the file cannot be read, is damaged, or is of another
            version.
        """
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise PlanFileError(
                f"{path} could not be read ({error}). Name a file that Plan.save has "
                "written."
            ) from error
        saved = loaded(text, str(path))
        known = dict(saved.predicted)
        note = f"loaded from {saved.name}, and not applied yet"
        if saved.found is None or saved.outline is None:
            return Plan(saved.budget, Status.UNTOUCHED, note=note, saved=saved, **known)
        return Plan(
            saved.budget,
            saved.found.status,
            saved.found.schedule,
            note=note,
            solver=saved.found.solver,
            formulation=saved.outline.formulation,
            saved=saved,
            **known,
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws memory and time over the step, with and without the plan.

        Bytes are modelled, and what runs when is simulated, event by event.

        Device memory with the budget, host memory, and the timeline of compute and
        copies. Forward and backward pass are marked where the step shows them.

        !!! Example

            ```python
            step.plan(state, batch).plot("memory.png")
            ```

        **Arguments:**

        - `path`: a file to write: `.png`, `.svg`, `.pdf`. `None` to write none.

        **Returns:**

        A `matplotlib.figure.Figure`. It needs no display.

        **Raises:**

        - `ReportError`: if there is nothing to draw, matplotlib is missing, or the file
            cannot be written.
        """
        from .report.plots import plot_plan

        return plot_plan(self, None if path is None else Path(path))

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes the predicted timeline as a trace, which ui.perfetto.dev opens.

        **Arguments:**

        - `path`: a file to write, compressed if it ends in `.gz`. Times are simulated,
            event by event, and the trace says so.

        **Raises:**

        - `ReportError`: if there is nothing to draw, or the file cannot be written.
        """
        from .report.perfetto import save_trace

        save_trace(self, Path(path))

    def report(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan as a page that a browser opens, without a network.

        Memory and time over the step, with and without the plan, and for each segment
        what it does and what is alive; and a table of all values, with what was decided
        about each. Bytes are modelled and times simulated, and the page says so.

        !!! Example

            ```python
            step.plan(state, batch).report("plan.html")
            ```

        **Arguments:**

        - `path`: a file to write.

        **Raises:**

        - `ReportError`: if there is nothing to draw, or the file cannot be written.
        """
        from .report.page import save_page

        save_page(self, Path(path))

    def policy(self) -> Callable[..., Any]:
        """The plan as a policy of `jax.checkpoint`, for values that have names.

        A policy goes by the names that `jax.ad_checkpoint.checkpoint_name` gives, and
        is the same for all layers: what the plan keeps is saved, what it moves is
        offloaded to `pinned_host`, what it computes again is neither. It is less than
        the plan, and nobody checks what it takes.

        !!! Example

            ```python
            layer = jax.checkpoint(layer, policy=step.plan(state, batch).policy())
            ```

        **Returns:**

        A policy.

        **Raises:**

        - `ReportError`: if the step names no values, or was not analysed.
        """
        from .report.policy import policy_of

        return policy_of(self)

    def __str__(self) -> str:
        from .report.text import summary

        return summary(self)
