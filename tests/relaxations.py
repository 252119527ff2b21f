"""Relaxations of problems, to be solved again."""

from autotm_jax.solve import JointProgram, Problem, SolverOptions
from autotm_jax.solve.answer import Answer
from autotm_jax.solve.tightening import Tightening


EXACT = SolverOptions(time_limit=60.0, gap=1e-5)


def relaxation(
    problem: Problem, limit: float
) -> tuple[JointProgram, Answer, Tightening]:
    """The joint program of a problem, the optimum of its relaxation, and that again."""
    program = JointProgram(problem)
    relaxed = program.relaxed.run(limit, EXACT)
    assert relaxed is not None and program.relaxed.posed is not None
    return program, relaxed, Tightening(relaxed, program.relaxed.posed, limit)
