"""Plans whose live bytes keep a limit that their allocation does not."""

import dataclasses

from autotm_jax.solve import (
    JointProgram,
    Problem,
    Schedule,
    SolverOptions,
    packed_bytes,
    polish,
    replay,
)

from .problems import limit_between, random_problem


def plans(seed: int) -> list[Schedule]:
    """Optima of a random problem at several limits, and the one that does nothing."""
    free = random_problem(seed)
    program, options = JointProgram(free), SolverOptions(time_limit=60.0)
    limits = [limit_between(free, part) for part in (0.0, 0.2, 0.4, 0.6, 0.8)]
    found = [program.fastest(limit, options).schedule for limit in limits]
    return [Schedule(), *(s for s in found if s is not None)]


def not_packing(seed: int) -> tuple[Problem, Schedule] | None:
    """A problem and a polished plan that fits it, but does not pack."""
    free = random_problem(seed)
    for found in plans(seed):
        schedule = polish(free, found)
        state = replay(free, schedule)
        if packed_bytes(free, state) > state.device_peak:
            limit = float(state.device_peak)
            return dataclasses.replace(free, device_limit=limit), schedule
    return None


def packs(problem: Problem, schedule: Schedule) -> bool:
    """Whether a plan breaks no rule and its allocation keeps the limit."""
    state = replay(problem, schedule)
    return not state.faults and packed_bytes(problem, state) <= problem.device_limit
