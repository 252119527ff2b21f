"""What a search found, and how it is kept in the cache."""

from __future__ import annotations

import dataclasses
from typing import Any

from .solve import (
    Fetch,
    Pick,
    Problem,
    Recompute,
    Schedule,
    Solution,
    Status,
    Store,
    Stream,
    replay,
)


SEARCH = 32
"""Part of the key of every plan that is kept: to be raised when the search changes."""


@dataclasses.dataclass(frozen=True)
class Found(Solution):
    """A solution that has a schedule."""

    schedule: Schedule  # pyright: ignore[reportIncompatibleVariableOverride]


def sound(problem: Problem, solution: Solution) -> Found | None:
    """A solution whose schedule passes the checker, or `None`."""
    schedule = solution.schedule
    if schedule is None or replay(problem, schedule).faults:
        return None
    status, bound = solution.status, solution.bound
    figures = solution.objective, bound, solution.seconds
    return Found(status, schedule, *figures, solution.note, solution.solver)


def written(found: Found) -> dict[str, Any]:
    """What was found as a cache entry: see `read_found`."""
    schedule = found.schedule
    return {
        "status": found.status.name,
        "objective": found.objective,
        "bound": found.bound,
        "note": found.note,
        "solver": found.solver,
        "stores": [dataclasses.astuple(s) for s in schedule.stores],
        "fetches": [dataclasses.astuple(f) for f in schedule.fetches],
        "recomputes": [dataclasses.astuple(r) for r in schedule.recomputes],
        "streams": [dataclasses.astuple(s) for s in schedule.streams],
        "picks": [dataclasses.astuple(p) for p in schedule.picks],
    }


def read_found(entry: Any) -> Found | None:
    """What a cache entry says, or `None` if it is none."""
    try:
        schedule = Schedule(
            tuple(Store(*s) for s in entry["stores"]),
            tuple(Fetch(*f) for f in entry["fetches"]),
            tuple(Recompute(*r) for r in entry["recomputes"]),
            tuple(Stream(*s) for s in entry["streams"]),
            tuple(Pick(*p) for p in entry["picks"]),
        )
        status = Status[entry["status"]]
        figures = entry["objective"], entry["bound"]
        texts = entry["note"], entry["solver"]
        return Found(status, schedule, *figures, 0.0, *texts)
    except (TypeError, KeyError):
        return None
