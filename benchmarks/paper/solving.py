"""How long the programs of the other experiments took to solve."""

from __future__ import annotations

from .registry import experiment
from .report import Cell, Report, Table
from .study import GB, Study


@experiment("solving")
def solving(study: Study) -> Report:
    """Every plan that was solved before it in the same run, or one network's."""
    if not study.solved:
        case = study.posed("inception-v4")
        for ratio in (8, 4, 1):
            study.static(case, case.limit(ratio))
            study.synchronous(case, case.limit(ratio))
    rows: list[tuple[Cell, ...]] = [
        (
            found.network,
            study.settings_of[case].name,
            found.formulation.value,
            found.limit / GB,
            case.problem.segments,
            len(case.problem.tensors),
            found.columns,
            found.build,
            found.seconds,
            found.status,
            100 * found.gap,
        )
        for (case, _, _), found in study.solved.items()
    ]
    taken = sorted(found.seconds for found in study.solved.values())
    summary = (len(taken), sum(taken), taken[len(taken) // 2], taken[-1])
    return Report(
        "wall time of the solver, measured here",
        "programs are solved by Gurobi to a gap of 1 % within an hour, and again where "
        "the allocation does not fit; its times were not read.",
        "HiGHS, to the same gap, on the machine at hand. A kernel whose time is a sum "
        "over its tensors has a configuration for each of them, rather than for each "
        "subset. What is counted is live bytes, as no allocation is made: so there is "
        "no refinement.",
        (
            Table(
                "All of them",
                ("programs", "seconds", "median, s", "longest, s"),
                (summary,),
            ),
            Table(
                "Solve times",
                (
                    "network",
                    "kernels",
                    "formulation",
                    "DRAM, GB",
                    "segments",
                    "tensors",
                    "columns",
                    "build, s",
                    "solve, s",
                    "status",
                    "gap, percent",
                ),
                tuple(rows),
            ),
        ),
    )
