"""HiGHS, and the process that runs it.

This file is imported by `worker.py` and is also the script of the process that
`worker.py` starts, so it imports nothing of this package. The process reads problems
from its standard input and writes what it finds to its standard output, as pickles
with their length in front. It ends when its input does.

A problem is a dictionary, as the process knows no class of this package:

    minimize cost @ x  subject to  row_lower <= A x <= row_upper, lower <= x <= upper

- `cost`, `lower`, `upper`, `row_lower`, `row_upper`: vectors.
- `indptr`, `indices`, `data`: A, by columns.
- `integer`: the indices of the variables that are integers.
- `options`: of HiGHS, by name.
- `name`: of a problem without integers that may be solved again. The process keeps the
  last one that has a name.

One that it keeps is solved again, from where it ended, by

- `again`: its name.
- `columns`, `lower`, `upper`: the variables that have other bounds now.
- `options`: as above.

The answer is a dictionary as well: `status` (HiGHS's name of it, or `UNKNOWN` if there
is no such problem any more), `x`, `reduced_costs`, `objective`, `bound`.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np


# Reports on the way to an answer, called with what they are of.
Report = Callable[..., None]

UNKNOWN = "unknown"
"""The status of a problem that is not kept."""

_LENGTH = struct.Struct("<Q")

# The least seconds between two reports of the bound.
_BOUND_SECONDS = 0.1


def send(stream: BinaryIO, message: Any) -> None:
    """Writes one message."""
    body = pickle.dumps(message, protocol=5)
    stream.write(_LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Reads one message, `None` at the end."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return pickle.loads(body) if len(body) == length else None


class Solver:
    """Solves problem after problem, and keeps the last one that has a name."""

    def __init__(self) -> None:
        self._kept: tuple[Any, Any] = None, None  # its name, and the solver
        self._basis: Any = None  # of its last optimum

    def solve(self, problem: dict[str, Any], report: Report) -> dict[str, Any]:
        """Solves a problem in this process.

        **Arguments:**

        - `problem`: see above.
        - `report`: called with `"incumbent", x, objective, bound` for every better
            integer solution, and with `"bound", bound` now and then.

        **Returns:**

        The answer.

        **Raises:**

        - `ValueError`: if HiGHS does not know an option, or refuses the problem.
        """
        import highspy

        if "again" in problem:
            return self._again(problem)
        solver = highspy.Highs()
        solver.setOptionValue("log_to_console", False)
        _set(solver, problem["options"])
        if solver.passModel(_model(problem)) == highspy.HighsStatus.kError:
            raise ValueError("HiGHS refuses the problem.")
        is_integer = len(problem["integer"]) > 0
        if is_integer:
            _subscribe(solver, report, len(problem["cost"]))
        elif "name" in problem:
            self._kept, self._basis = (problem["name"], solver), None
        solver.run()
        return _answer(solver, is_integer)

    def _again(self, problem: dict[str, Any]) -> dict[str, Any]:
        import highspy

        name, solver = self._kept
        if problem["again"] != name:
            found = dict.fromkeys(("x", "reduced_costs"), np.zeros(0))
            figures = {"objective": float("inf"), "bound": -float("inf")}
            return {"status": UNKNOWN, **found, **figures}
        if solver.getModelStatus() == highspy.HighsModelStatus.kOptimal:
            self._basis = solver.getBasis()
        elif self._basis is not None:
            solver.setBasis(self._basis)  # where it found nothing is far from anything
        bounds = problem["columns"], problem["lower"], problem["upper"]
        for column, lower, upper in zip(*bounds, strict=True):
            solver.changeColBounds(int(column), float(lower), float(upper))
        options = dict(problem["options"])
        options["time_limit"] += solver.getRunTime()  # of all of its runs
        _set(solver, options)
        solver.run()
        return _answer(solver, is_integer=False)


def _set(solver: Any, options: dict[str, Any]) -> None:
    import highspy

    for name, value in options.items():
        if solver.setOptionValue(name, value) == highspy.HighsStatus.kError:
            raise ValueError(f"HiGHS refuses the option {name}={value!r}.")


def _answer(solver: Any, is_integer: bool) -> dict[str, Any]:
    info, found = solver.getInfo(), solver.getSolution()
    status, objective = solver.getModelStatus().name, info.objective_function_value
    bound = info.mip_dual_bound
    if not is_integer:
        bound = objective if status == "kOptimal" else -float("inf")
    return {
        "status": status,
        "x": np.array(found.col_value),
        "reduced_costs": np.array(found.col_dual),
        "objective": objective,
        "bound": bound,
    }


def _model(problem: dict[str, Any]) -> Any:
    import highspy

    model = highspy.HighsModel()
    lp = model.lp_
    lp.num_col_, lp.num_row_ = len(problem["cost"]), len(problem["row_upper"])
    lp.col_cost_ = problem["cost"]
    lp.col_lower_, lp.col_upper_ = problem["lower"], problem["upper"]
    lp.row_lower_, lp.row_upper_ = problem["row_lower"], problem["row_upper"]
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = problem["indptr"]
    lp.a_matrix_.index_ = problem["indices"]
    lp.a_matrix_.value_ = problem["data"]
    if len(problem["integer"]):
        kinds = [highspy.HighsVarType.kContinuous] * lp.num_col_
        for index in problem["integer"]:
            kinds[index] = highspy.HighsVarType.kInteger
        lp.integrality_ = kinds
    return model


def _subscribe(solver: Any, report: Report, columns: int) -> None:
    last = [time.monotonic(), -float("inf")]

    def better(event: Any) -> None:
        out = event.data_out
        found = out.mip_solution  # HiGHS 1.8 says no more of it than its values
        x = np.fromiter((found[i] for i in range(columns)), float, columns)
        report("incumbent", x, out.objective_function_value, out.mip_dual_bound)

    def checks_limits(event: Any) -> None:
        now, bound = time.monotonic(), event.data_out.mip_dual_bound
        if bound > last[1] and now - last[0] > _BOUND_SECONDS:
            last[:] = now, bound
            report("bound", bound)

    solver.cbMipImprovingSolution.subscribe(better)
    solver.cbMipInterrupt.subscribe(checks_limits)


def main() -> None:
    """The process: problem after problem, until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints does not get between the messages.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import highspy  # before there is a problem that waits for it

    problems: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        while (problem := receive(sys.stdin.buffer)) is not None:
            problems.put(problem)
        # Nobody is left to hear the answer: also in the middle of a solve.
        os._exit(0)

    def report(*message: Any) -> None:
        try:
            send(answers, message)
        except OSError:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    report("ready")
    solver, threads = Solver(), None
    while True:
        problem = problems.get()
        if problem["options"].get("threads") != threads:
            # HiGHS keeps its threads from solve to solve, and refuses another number.
            threads = problem["options"].get("threads")
            highspy.Highs.resetGlobalScheduler(True)
        try:
            report("answer", solver.solve(problem, report))
        except Exception as error:  # noqa: BLE001 - for the other process to judge
            report("failed", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
