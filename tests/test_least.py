"""Which plan `"min"` takes of those that were found."""

import types
from typing import Any

import pytest

from autotm_jax import Status
from autotm_jax.least import least_plan
from autotm_jax.plan import Plan


class Packing:
    """A candidate whose plans are said to take so many bytes and seconds.

    Of what needs 100 bytes it makes the first plan, then one for each room.
    """

    fixed_bytes, cut_bytes, least_bytes = 10, 10_000, 110
    problem = types.SimpleNamespace(compute=[1.0])

    def __init__(self, *takes: tuple[int, float]):
        self.takes = list(takes)
        self.least = types.SimpleNamespace(objective=100)

    def within(self, limit: int, slack: int, gap: float) -> object:
        """Something is found for any limit."""
        return object()

    def plan(self, found: object, budget: None, limit: float, note: str) -> Plan:
        """The next of its plans."""
        nbytes, seconds = self.takes.pop(0)
        return Plan(None, Status.OPTIMAL, device_bytes=nbytes, seconds=seconds)


@pytest.mark.parametrize(
    ("takes", "best"),
    [
        # The rooms go up to 110, 120 and 130 bytes beside the 10 that are fixed.
        ([(110, 9.0), (120, 3.0), (130, 2.9), (140, 2.8)], 1),
        ([(110, 9.0), (120, 3.0), (130, 2.0), (140, 1.9)], 2),
        ([(110, 9.0), (120, 8.9), (130, 8.8), (140, 2.0)], 3),
        ([(110, 9.0), (122, 3.0), (190, 2.0), (190, 2.0)], 1),
        # What packs badly is all there is, or is too much.
        ([(110, 9.0), (190, 3.0), (180, 2.0), (180, 2.0)], 0),
        ([(200, 9.0), (160, 3.0), (150, 4.0), (190, 3.0)], 2),
        ([(110, 1.1), (125, 1.0)], 0),
    ],
)
def test_min_is_the_fastest_of_what_packs_in_the_room_there_is(
    takes: list[tuple[int, float]], best: int
):
    candidate: Any = Packing(*takes)
    _, plan = least_plan(candidate, "")
    assert (plan.device_bytes, plan.seconds) == takes[best]
