"""What the synchronous program finds: which tensors leave DRAM, when, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotm_jax.solve import Formulation

from .fates import Fate, Role, Way, fates, gigabytes
from .groups import DEPTH, MADE, PRICE, READ, SIZE, WAITS, Group
from .lives import draw_lives, draw_parts
from .posing import Posed
from .registry import experiment
from .report import Cell, Report, Table
from .study import DEFAULT, GB, Setting, Study
from .uses import Use, uses, uses_table


RATIO = 4


_DRAWN = "inception-v4"

_WAYS = (*(way.value for way in Way), "copied back")


@dataclasses.dataclass(frozen=True)
class Planned:
    """A network under its plan: the step, its uses of tensors, and their fates."""

    case: Posed
    used: list[Use]
    found: list[Fate]

    @property
    def kept(self) -> list[Fate]:
        """What the forward pass leaves to the backward pass."""
        return [fate for fate in self.found if fate.role.is_kept]


@experiment("finds")
def finds(study: Study) -> Report:
    """The four networks at 4:1."""
    plans = {name: _planned(study, name, DEFAULT) for name in study.conventional}
    others = tuple(
        (setting.name, name, *_ways(_planned(study, name, setting).kept))
        for setting in study.settings
        for name in study.conventional
    )
    chosen = PRICE, READ, DEPTH, WAITS, SIZE
    return Report(
        f"what moves, when and why, at {RATIO}:1, simulated",
        "it gives an intuition of which tensors move and when; it was not read.",
        "times are a roofline's. Arguments and results (weights, and most of their "
        "gradients, which update them at once) are in DRAM and not decided about, as "
        "in the authors' code. A price is that of one tensor in Optane with all else "
        "in DRAM: the least of being made or copied there, and of being read there or "
        "copied back. Percent of a step are of its seconds with all of it in DRAM.",
        (
            _classes(plans),
            uses_table({name: plan.used for name, plan in plans.items()}),
            _prices(plans),
            _grouped(plans, chosen, "waits in Optane", lambda fate: fate.is_away),
            _grouped(plans, (MADE,), "is born there", lambda f: f.way is Way.BORN),
            _moments(plans),
            _stores(others),
        ),
        lambda figure: _draw(figure, plans),
    )


def _planned(study: Study, name: str, setting: Setting) -> Planned:
    case = study.posed(name, setting=setting)
    limit = case.limit(RATIO)
    schedule = study.plan(case, Formulation.SYNCHRONOUS, limit).schedule
    return Planned(case, uses(case, schedule), fates(case, schedule))


def _part(found: Sequence[Fate], is_meant: Callable[[Fate], bool]) -> float | None:
    # Percent of the bytes.
    return 100 * gigabytes(found, is_meant) / gigabytes(found) if found else None


def _mean(found: Sequence[Fate], of: Callable[[Fate], float]) -> float:
    # By bytes.
    return sum(of(fate) * fate.nbytes for fate in found) / GB / gigabytes(found)


def _ways(found: Sequence[Fate]) -> tuple[Cell, ...]:
    each = (_part(found, lambda fate, way=way: fate.way is way) for way in Way)
    return *each, _part(found, lambda fate: fate.is_fetched)


def _classes(plans: Mapping[str, Planned]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, plan in plans.items():
        for role in Role:
            found = [fate for fate in plan.found if fate.role is role]
            if found:
                size = len(found), gigabytes(found)
                waits = 100 * _mean(found, lambda fate: fate.waits)
                price = _mean(found, lambda fate: fate.price)
                row = *size, *_ways(found), waits, price
                rows.append((name, role.value, *row))
    return Table(
        "What becomes of tensors, percent of their bytes, simulated",
        (
            "network",
            "tensors",
            "number",
            "GB",
            *_WAYS,
            "waits, percent of the step",
            "price, ms per GB",
        ),
        tuple(rows),
    )


def _prices(plans: Mapping[str, Planned]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    decisions = [(way, back) for way in Way for back in (False, True)]
    for name, plan in plans.items():
        for way, back in decisions:
            found = [f for f in plan.kept if f.way is way and f.is_fetched is back]
            if found:
                means = (
                    _mean(found, lambda fate: fate.born),
                    _mean(found, lambda fate: fate.copied),
                    _mean(found, lambda fate: fate.read),
                    _mean(found, lambda fate: fate.fetched),
                    _mean(found, lambda fate: fate.price),
                )
                decision = way.value + ", and back" * back
                rows.append((name, decision, gigabytes(found), *means))
    return Table(
        "What the forward pass leaves: ms per GB by what was decided, simulated",
        (
            "network",
            "it is",
            "GB",
            "made there",
            "copied there",
            "read there",
            "copied back",
            "price",
        ),
        tuple(rows),
    )


def _grouped(
    plans: Mapping[str, Planned],
    groups: Sequence[Group],
    what: str,
    is_meant: Callable[[Fate], bool],
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        columns = _parts(plans, group, is_meant).values()
        for span, *parts in zip(group.spans, *columns, strict=True):
            if any(part is not None for part in parts):
                rows.append((group.name, span, *parts))
    return Table(
        f"What the forward pass leaves: percent of bytes that {what}, simulated",
        ("by", "from", *plans),
        tuple(rows),
    )


def _parts(
    plans: Mapping[str, Planned], group: Group, is_meant: Callable[[Fate], bool]
) -> dict[str, list[float | None]]:
    return {
        name: [_part(found, is_meant) for found in group.divided(plan.kept)]
        for name, plan in plans.items()
    }


def _moments(plans: Mapping[str, Planned]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, plan in plans.items():
        copied = [fate for fate in plan.kept if fate.way is Way.COPIED]
        away = [fate for fate in plan.kept if fate.is_away]
        row: tuple[Cell, ...] = (
            plan.case.limit(RATIO) / GB,
            max(fate.nbytes for fate in plan.found) / GB,
            gigabytes(plan.kept) - gigabytes(away),
            gigabytes(away),
            gigabytes(copied),
            _part(copied, lambda fate: fate.leaves == fate.early[-1]),
            _part(copied, lambda fate: fate.leaves in fate.early[:-1]),
            _part(away, lambda fate: fate.read < 1),
        )
        rows.append((name, *row))
    return Table(
        "What the forward pass leaves: where it waits, and when it leaves, simulated",
        (
            "network",
            "DRAM, GB",
            "largest tensor, GB",
            "waits in DRAM, GB",
            "in Optane, GB",
            "of that, copied out, GB",
            "right after the last use forward, percent",
            "after an earlier one, percent",
            "of all in Optane, read there at no cost, percent",
        ),
        tuple(rows),
    )


def _stores(rows: tuple[tuple[Cell, ...], ...]) -> Table:
    return Table(
        "What the forward pass leaves, by assumption about kernels, percent of bytes, "
        "simulated",
        ("kernels", "network", *_WAYS),
        rows,
    )


def _draw(figure: Any, plans: Mapping[str, Planned]) -> None:
    figure.set_size_inches(12, 5.5)
    places = [["lives", "lives", "price"], ["lives", "lives", "depth"]]
    axes = figure.subplot_mosaic(places)
    drawn = plans[_DRAWN]
    draw_lives(axes["lives"], drawn.case, drawn.found)
    axes["lives"].set_title(f"{_DRAWN} at {RATIO}:1")
    for name, group in (("price", PRICE), ("depth", DEPTH)):
        parts = _parts(plans, group, lambda fate: fate.is_away)
        draw_parts(axes[name], group.spans, parts)
        axes[name].set_xlabel(group.name)
        axes[name].set_ylabel("waits in Optane,\npercent of bytes (simulated)")
