"""The ways to run a step, and in which order they are worth knowing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from ..baselines import CHECKPOINT_POLICIES
from .cases import FULL_REMAT, Case


Kind = Literal["jit", "checkpoint", "XLA offload", "autotm"]

FULL = "full remat"
"""The budget that is what full rematerialisation per layer takes."""

LOOSE = "loose"
"""The budget that plain `jax.jit` keeps easily."""

LEAST = "min"

CARD = "card"
"""The budget that is all of the card's memory."""

_LOOSE_FACTOR = 1.2


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to run a step.

    - `kind`: by `jax.jit` alone, by `jax.checkpoint` per layer, by XLA's own offload to
        the host, or by `autotm.jit`.
    - `detail`: the policy, or the boolean program.
    - `budget`: a fraction of what plain `jax.jit` takes, as text, or `FULL`, `LOOSE`,
        `LEAST` or `CARD`; empty where there is none.
    """

    kind: Kind
    detail: str = ""
    budget: str = ""

    @property
    def name(self) -> str:
        """What tables call it."""
        said = self.detail if self.kind == "autotm" else f"{self.kind} {self.detail}"
        at = f" at {self.budget}" if self.budget else ""
        return f"{said.strip()}{at}".replace("jit", "jax.jit", 1)

    def suits(self, case: Case) -> bool:
        """Whether a workload can be run so."""
        if self.budget == FULL:
            return FULL_REMAT in case.policies
        return self.kind != "checkpoint" or self.detail in case.policies


PLAIN = Way("jit")
REMAT = Way("checkpoint", FULL_REMAT)


def planned(program: str, budget: str) -> Way:
    """The way of `autotm.jit` with one of the boolean programs."""
    return Way("autotm", program, budget)


TIGHT = "0.6"
"""The fraction of plain `jax.jit`'s memory at which the boolean programs compete."""

AT_TIGHT, AT_FULL = planned("joint", TIGHT), planned("joint", FULL)
AT_LOOSE, AT_LEAST = planned("joint", LOOSE), planned("joint", LEAST)
ASYNCHRONOUS = planned("asynchronous", TIGHT)
SYNCHRONOUS = planned("synchronous", TIGHT)
ON_CARD = planned("joint", CARD)


def _under(policy: str) -> Way:
    assert policy in CHECKPOINT_POLICIES
    return Way("checkpoint", policy)


GROUPS: tuple[tuple[Way, ...], ...] = (
    (PLAIN, REMAT, AT_TIGHT, AT_FULL),
    (AT_LOOSE, ASYNCHRONOUS, SYNCHRONOUS),
    (
        AT_LEAST,
        _under("dots_with_no_batch_dims_saveable"),
        _under("offload_layer_inputs"),
    ),
    (
        Way("XLA offload", "", TIGHT),
        _under("offload_dot_with_no_batch_dims"),
        _under("dots_saveable"),
        planned("static", TIGHT),
    ),
)
"""What is run together, the most important first."""

REST: tuple[tuple[Way, ...], ...] = (
    (planned("joint", "0.8"), planned("joint", "0.4")),
    tuple(planned(p, FULL) for p in ("asynchronous", "synchronous", "static")),
)
"""What there is time for only where time does not count."""

EVERY = (*GROUPS, *REST, (ON_CARD,))

BY_NAME = {way.name: way for group in EVERY for way in group}


def suitable(group: Sequence[Way], case: Case) -> tuple[Way, ...]:
    """Of a group, the ways that suit a workload."""
    return tuple(way for way in group if way.suits(case))


def budget_bytes(
    way: Way, plain: int | None, full: int | None, card: int
) -> int | Literal["min"]:
    """What `autotm.jit` is given as the budget of a way.

    **Arguments:**

    - `way`: one of `autotm.jit`, or of XLA's offload.
    - `plain`, `full`: device bytes of plain `jax.jit` and of full rematerialisation;
        `None` if they are not known.
    - `card`: what the card has.

    **Returns:**

    Device bytes, or `"min"`.

    **Raises:**

    - `ValueError`: if the budget is relative to what is not known.
    """
    if way.budget == LEAST:
        return LEAST
    if way.budget == CARD:
        return card
    if (full if way.budget == FULL else plain) is None:
        other = REMAT if way.budget == FULL else PLAIN
        raise ValueError(
            f"The budget of {way.name!r} is what {other.name!r} takes, and that did "
            "not compile: see its row for why."
        )
    if way.budget == FULL:
        assert full is not None
        return full
    assert plain is not None
    factor = _LOOSE_FACTOR if way.budget == LOOSE else float(way.budget)
    return int(factor * plain)
