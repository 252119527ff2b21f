import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cvxpy as cp
import highspy
import numpy as np
import pytest
import scipy.sparse as sp

from autotm_jax.solve import JointProgram, SolverOptions, highs, model
from autotm_jax.solve.answer import INFEASIBLE
from autotm_jax.solve.matrices import Matrices
from autotm_jax.solve.worker import WORKER, Process, Worker

from .problems import random_problem


# A process that is slow to be scheduled is not late for that.
SLACK = 1.0


def programs(boolean):
    """Rows of every kind, bounds, and a constant in the objective."""
    draw = np.random.default_rng(0)
    x = cp.Variable(12, boolean=boolean)
    y = cp.Variable()
    limit = cp.Parameter(value=3.0)
    rows = [draw.random((5, 12)) @ x >= limit, cp.sum(x[:4]) == 1, y >= x[0]]
    rows += [] if boolean else [x >= 0, x <= 0.9]
    return cp.Problem(cp.Minimize(draw.random(12) @ x + 2 * y + 3), rows), x, limit


def knapsack(size=12, rows=2, seconds=20.0, **options):
    """A problem as `highs.py` takes it."""
    draw = np.random.default_rng(size)
    matrix = sp.csc_array(draw.integers(1, 100, (rows, size)).astype(float))
    return {
        "cost": draw.integers(1, 100, size).astype(float),
        "lower": np.zeros(size),
        "upper": np.ones(size),
        "row_lower": np.full(rows, 12.0 * size),
        "row_upper": np.full(rows, np.inf),
        "indptr": matrix.indptr,
        "indices": matrix.indices,
        "data": matrix.data,
        "integer": np.arange(size),
        "options": {"time_limit": seconds, "mip_rel_gap": 0.0} | options,
    }


def fake(then):
    """The command of a process that takes a problem, and then does something else."""
    lines = [
        "import os, signal, sys, time",
        f"sys.path.insert(0, {str(Path(highs.__file__).parent)!r})",
        "import highs, numpy as np",
        "say = lambda *message: highs.send(sys.stdout.buffer, message)",
        "say('ready')",
        *then,
    ]
    return [sys.executable, "-P", "-c", "\n".join(lines)]


TAKES = "problem = highs.receive(sys.stdin.buffer)"
FINDS = "say('incumbent', np.ones(12), {}, {})".format
HANGS = "time.sleep(60)"
CRASHES = "os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture
def worker():
    made = []

    def make(command):
        made.append(Worker(command))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def real(worker):
    return worker(WORKER._command)


@pytest.mark.parametrize("boolean", [False, True])
def test_values_are_those_of_cvxpy(real, boolean):
    program, x, limit = programs(boolean)
    for value in (3.0, 2.0):
        limit.value = value
        program.solve(solver=cp.HIGHS)
        expected = program.value, x.value
        at_least = program.constraints[-2].dual_value
        matrices = Matrices(program)
        outcome = real.solve(matrices.problem({"time_limit": 20.0}), 20.0)
        for variable in program.variables():
            variable.value = None
        matrices.unpack(outcome)
        assert outcome.status == "kOptimal" and outcome.failure == ""
        # The constant is CVXPY's.
        assert outcome.objective == pytest.approx(expected[0] - 3)
        assert outcome.bound == pytest.approx(outcome.objective, rel=1e-4)
        assert program.value == pytest.approx(expected[0])
        assert program.objective.value == pytest.approx(expected[0])
        assert x.value == pytest.approx(expected[1])
        if not boolean:
            upper = cp.Parameter(12, value=np.full(12, 0.9))
            bounded = [*program.constraints[:-1], x <= upper]
            same = Matrices(cp.Problem(program.objective, bounded))
            outcome = real.solve(same.problem({"time_limit": 20.0}), 20.0)
            (variables,) = same.positions(x)
            assert outcome.x[variables] == pytest.approx(expected[1])
            # What costs something to increase are the duals of `x >= 0`.
            reduced = np.maximum(outcome.reduced_costs[variables], 0.0)
            assert reduced.any() and reduced == pytest.approx(at_least)


def test_what_is_left_out_is_not_passed_on(real):
    x, y = cp.Variable(6, boolean=True), cp.Variable()
    upper = cp.Parameter(6, nonneg=True)
    worth = np.array([5.0, 4, 3, 2, 1, 6])
    rows = [x <= upper, cp.sum(x) <= 2, y <= 0.5, -2 * y <= 1, x[0] + x[5] >= y]
    program = cp.Problem(cp.Maximize(worth @ x + y), rows)
    for allowed, value in ((np.ones(6), 11.5), (np.array([0.0, 1, 1, 0, 1, 0]), 7.0)):
        upper.value = allowed
        matrices = Matrices(program)
        problem = matrices.problem({"mip_rel_gap": 0.0})
        # Those and y; and the two rows of more than one variable.
        assert len(problem["cost"]) == allowed.sum() + 1
        assert len(problem["integer"]) == allowed.sum()
        assert len(problem["row_upper"]) == 2
        matrices.unpack(real.solve(problem, 20.0))
        assert program.objective.value == pytest.approx(value)
        assert (x.value <= allowed + 1e-9).all()


def test_bounds_that_contradict_each_other_have_no_solution(real):
    x, y = cp.Variable(3, boolean=True), cp.Variable()
    rows = [cp.sum(x) >= y, y >= 2, y <= 1]
    matrices = Matrices(cp.Problem(cp.Minimize(cp.sum(x)), rows))
    outcome = real.solve(matrices.problem({}), 20.0)
    assert (outcome.status, outcome.failure) == ("kInfeasible", "")
    assert outcome.x is None


def test_variables_keep_their_bounds(real):
    x = cp.Variable(2, bounds=[-1, 4])
    program = cp.Problem(cp.Minimize(x[0] - x[1]), [x[0] + x[1] <= 2])
    matrices = Matrices(program)
    matrices.unpack(real.solve(matrices.problem({}), 20.0))
    assert x.value == pytest.approx([-1, 3])


def test_there_may_be_no_solution(real):
    problem = knapsack()
    nothing = real.solve(
        problem | {"row_upper": np.zeros(2), "row_lower": -np.ones(2)}, 20
    )
    assert nothing.status == "kOptimal" and not nothing.x.any()
    infeasible = real.solve(problem | {"row_lower": np.full(2, 1e6)}, 20.0)
    assert (infeasible.status, infeasible.x) == ("kInfeasible", None)
    free = {"integer": np.zeros(0, int), "upper": np.full(12, np.inf)}
    unbounded = real.solve(problem | free | {"cost": -problem["cost"]}, 20.0)
    assert unbounded.status in ("kUnbounded", "kUnboundedOrInfeasible")


def test_every_better_solution_is_reported_as_it_is_found():
    problem, reports = knapsack(60, 8, seconds=2.0), []
    answer = highs.Solver().solve(problem, lambda *what: reports.append(what))
    found = [what for kind, *what in reports if kind == "incumbent"]
    assert len(found) > 1
    for x, objective, bound in found:
        assert problem["cost"] @ x == pytest.approx(objective)
        assert bound <= objective
    objectives = [objective for _, objective, _ in found]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[-1] == pytest.approx(answer["objective"])


def test_the_process_is_kept_and_prints_nothing(real, capfd):
    real.prepare()
    first = real._idle
    for threads in (1, 2):
        outcome = real.solve(knapsack(threads=threads, log_to_console=True), 20.0)
        assert outcome.status == "kOptimal"
    assert real._idle is first and first.is_alive()
    real.close()
    assert not first.is_alive()
    assert capfd.readouterr() == ("", "")


def test_what_highs_refuses_is_a_sentence(real):
    for solve in (real.solve, Worker(None).solve):
        outcome = solve(knapsack(presolv="on"), 20.0)
        assert outcome.status == "kSolveError" and outcome.x is None
        assert outcome.failure == "ValueError: HiGHS refuses the option presolv='on'."
    assert real.solve(knapsack(), 20.0).status == "kOptimal"


def test_a_problem_that_highs_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    refused = lambda solver, model: highspy.HighsStatus.kError  # noqa: E731
    monkeypatch.setattr(highspy.Highs, "passModel", refused)
    with pytest.raises(ValueError, match=r"^HiGHS refuses the problem\.$"):
        highs.Solver().solve(knapsack(), lambda *said: None)


def test_what_is_kept_is_solved_again_from_where_it_ended(real):
    relaxed = knapsack(60, 8) | {"integer": np.zeros(0, int), "name": 7}
    free = real.solve(relaxed, 20.0)
    assert free.status == "kOptimal"
    (divided,) = np.nonzero((free.x > 1e-6) & (free.x < 1 - 1e-6))
    columns = divided[:2]
    bounds = {"lower": np.array([0.0, 1.0]), "upper": np.array([0.0, 1.0])}
    again = {"again": 7, "columns": columns, "options": relaxed["options"], **bounds}
    warm = real.solve(again, 20.0)
    lower, upper = relaxed["lower"].copy(), relaxed["upper"].copy()
    lower[columns], upper[columns] = bounds["lower"], bounds["upper"]
    cold = real.solve(relaxed | {"lower": lower, "upper": upper, "name": 8}, 20.0)
    assert warm.status == cold.status == "kOptimal"
    assert warm.objective == pytest.approx(cold.objective) != free.objective
    # The last one that has a name is kept, and no other.
    assert real.solve(again, 20.0).status == highs.UNKNOWN
    assert Worker(None).solve(again, 20.0).status == highs.UNKNOWN


def test_after_a_problem_without_a_solution_the_kept_one_is_solved_all_the_same(real):
    relaxed = knapsack(60, 8) | {"integer": np.zeros(0, int), "name": 1}
    free, every = real.solve(relaxed, 20.0), np.arange(60)
    again = {"again": 1, "columns": every, "options": relaxed["options"]}
    none = real.solve(again | {"lower": np.zeros(60), "upper": np.zeros(60)}, 20.0)
    assert none.status == "kInfeasible"
    back = real.solve(again | {"lower": np.zeros(60), "upper": np.ones(60)}, 20.0)
    assert back.objective == pytest.approx(free.objective)


def test_a_process_that_is_slow_to_start_is_not_waited_for(worker, monkeypatch):
    starts = ["time.sleep(1.5)", "say('ready')", TAKES]
    starts += ["say('incumbent', np.ones(12), 2.0, 1.0)", HANGS]
    slow = worker([*fake([])[:-1], fake(starts)[-1].replace("say('ready')\n", "", 1)])
    start = time.monotonic()
    outcome = slow.solve(knapsack(), 0.3)
    assert time.monotonic() - start < 0.3 * 1.05 + 0.3 + SLACK
    assert (outcome.status, outcome.x, outcome.failure) == ("kTimeLimit", None, "")
    # It is kept. What is left of the time when it is there is what the solver gets.
    first = slow._idle
    assert first.is_alive() and not first.has_failed()
    start = time.monotonic()
    outcome = slow.solve(knapsack(), 4.0)
    assert time.monotonic() - start < 4.0 * 1.05 + 0.3 + SLACK
    assert (outcome.status, outcome.objective) == ("kTimeLimit", 2.0)
    assert slow._command is not None
    # One that never starts is given up.
    monkeypatch.setattr("autotm_jax.solve.worker._START_SECONDS", 0.2)
    never = worker([sys.executable, "-c", "import time; time.sleep(60)"])
    assert never.solve(knapsack(), 20.0).status == "kOptimal"
    assert never._command is None


@pytest.mark.parametrize("size", [12, 200_000])  # the second does not fit in a pipe
def test_a_process_that_does_not_answer_is_ended(worker, size):
    hangs = worker(fake([HANGS]))
    hangs.prepare()
    first = hangs._idle
    assert first.is_ready()
    start = time.monotonic()
    outcome = hangs.solve(knapsack(size, 1), 0.5)
    assert 0.5 < time.monotonic() - start < 0.5 * 1.05 + 0.3 + SLACK
    assert (outcome.status, outcome.x, outcome.failure) == ("kTimeLimit", None, "")
    assert not first.is_alive()
    # The next one is on its way.
    assert hangs._idle is not first and hangs._idle.is_alive()


def test_the_best_solution_is_not_lost(worker):
    finds = [TAKES, FINDS(9.0, 1.0), FINDS(7.0, 3.0), "say('bound', 4.0)"]
    late = worker(fake([*finds, HANGS])).solve(knapsack(), 0.5)
    assert (late.status, late.objective, late.bound) == ("kTimeLimit", 7.0, 4.0)
    assert late.x == pytest.approx(np.ones(12)) and late.failure == ""
    dead = worker(fake([*finds, CRASHES])).solve(knapsack(), 20.0)
    assert (dead.status, dead.objective, dead.bound) == ("kInterrupt", 7.0, 4.0)
    assert dead.x == pytest.approx(np.ones(12))
    code = -signal.SIGSEGV
    assert dead.failure == f"The solver's process died: exit status {code}."
    torn = "sys.stdout.buffer.write(b'0' * 20); sys.stdout.buffer.flush()"
    torn = worker(fake([*finds, torn, CRASHES])).solve(knapsack(), 20.0)
    assert (torn.status, torn.objective) == ("kInterrupt", 7.0)


def test_a_process_that_dies_is_replaced(real):
    for _ in range(2):
        assert real.solve(knapsack(), 20.0).status == "kOptimal"
        os.kill(real._idle._process.pid, signal.SIGKILL)
        real._idle._process.wait()
    assert real.solve(knapsack(), 20.0).status == "kOptimal"
    real.prepare()
    assert real._idle.is_ready()
    pid = real._idle._process.pid
    killer = threading.Timer(1.0, os.kill, (pid, signal.SIGKILL))
    killer.start()
    start = time.monotonic()
    outcome = real.solve(knapsack(400, 40), 30.0)
    assert time.monotonic() - start < 10
    assert outcome.status == "kInterrupt"
    assert (
        outcome.failure == f"The solver's process died: exit status {-signal.SIGKILL}."
    )
    assert outcome.x is not None and len(outcome.x) == 400
    assert real.solve(knapsack(), 20.0).status == "kOptimal"


@pytest.mark.parametrize(
    "command", [None, ["/no/such/python"], [sys.executable, "-c", "raise SystemExit"]]
)
def test_without_a_process_it_is_solved_here(worker, real, command):
    here = worker(command)
    outcome = here.solve(knapsack(), 20.0)
    there = real.solve(knapsack(), 20.0)
    assert outcome.status == there.status == "kOptimal"
    assert outcome.objective == there.objective
    assert (outcome.x == there.x).all()
    assert here._idle is None and here._command is None


def test_threads_do_not_wait_for_each_other(real):
    outcomes = {}

    def solve(size, rows, limit):
        outcomes[size] = real.solve(knapsack(size, rows, limit), limit)

    long = threading.Thread(target=solve, args=(400, 40, 4.0))
    long.start()
    solve(12, 2, 4.0)
    assert long.is_alive()
    long.join()
    assert outcomes[12].status == "kOptimal" and len(outcomes[12].x) == 12
    late = outcomes[400]
    assert late.status in ("kTimeLimit", "kOptimal")
    assert (late.failure, len(late.x)) == ("", 400)


@pytest.fixture
def heeded():
    """An interrupt is heeded, also where tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_the_solve(real, heeded):
    real.prepare()
    first = real._idle
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        real.solve(knapsack(400, 40), 30.0)
    assert not first.is_alive()
    assert real.solve(knapsack(), 20.0).status == "kOptimal"


def test_the_process_ends_with_its_input():
    process = Process(WORKER._command)
    assert process.is_ready()
    highs.send(process._process.stdin, knapsack(400, 40, seconds=60.0))
    time.sleep(0.5)
    assert process.is_alive()
    process._process.stdin.close()
    assert process._process.wait(timeout=10) == 0
    process.end()


def test_the_process_imports_little():
    program, _, script = WORKER._command
    shown = subprocess.run(
        [program, "-P", "-X", "importtime", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    names = {line.split("|")[-1].strip() for line in shown.stderr.splitlines()}
    assert "highspy" in names
    assert names.isdisjoint({"jax", "cvxpy", "scipy", "autotm_jax"})


def test_a_fork_leaves_the_process_alone(real):
    real.prepare()
    process, lock = real._idle, real._lock
    real.forget()
    assert real._idle is None and real._lock is not lock
    assert process.is_alive()
    process.end()


def test_a_model_survives_its_solver(worker, monkeypatch):
    program = JointProgram(random_problem(0))
    limit, options = 2.0**30, SolverOptions(time_limit=0.5)
    found = program.boolean.run(limit, options)
    assert found is not None and found is not INFEASIBLE
    monkeypatch.setattr(model, "WORKER", worker(fake([TAKES, HANGS])))
    assert program.boolean.run(limit, options) is None
    assert program.boolean.failure == ""
    monkeypatch.setattr(model, "WORKER", worker(fake([TAKES, CRASHES])))
    assert program.boolean.run(limit, options) is None
    code = -signal.SIGSEGV
    died = f"The solver's process died: exit status {code}."
    assert program.boolean.failure == died
    # A vector that is no path is not taken for one, and one of a wrong length neither.
    size = "len(problem['cost'])"
    for vector in (f"np.zeros({size})", "np.zeros(3)"):
        says = f"say('incumbent', {vector}, 1.0, 0.0)"
        monkeypatch.setattr(model, "WORKER", worker(fake([TAKES, says, CRASHES])))
        assert program.boolean.run(limit, options) is None

    # One that is, is: with the bound that was proved until then.
    class Spy:
        """The real worker, whose answers are looked at."""

        def solve(self, problem, limit):
            answers.append(WORKER.solve(problem, limit))
            return answers[-1]

        def prepare(self):
            WORKER.prepare()

    answers = []
    best = JointProgram(random_problem(0)).boolean
    monkeypatch.setattr(model, "WORKER", Spy())
    assert best.run(limit, options) is not None
    vector = f"np.array({answers[-1].x.tolist()})"
    steps = [TAKES, f"x = {vector}"]
    steps += ["say('incumbent', x, float(problem['cost'] @ x), 0.0)", CRASHES]
    monkeypatch.setattr(model, "WORKER", worker(fake(steps)))
    again = best.run(limit, options)
    assert again is not None and best.failure == died
    assert again.objective == pytest.approx(found.objective)
    assert again.bound < again.objective
    assert (again.x == found.x).all()
