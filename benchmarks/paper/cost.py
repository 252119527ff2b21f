"""Figure 9: performance beside what the memory costs, and beside the whole server.

A machine with n parts of Optane to d parts of DRAM has memory for
`(n / 2.1 + d) / (n + d)` of what all of it in DRAM costs, as in the authors' code.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .posing import MACHINE
from .ratios import loss, ways
from .registry import experiment
from .report import Cell, Report, Table
from .study import Study


PRICE_RATIO = 2.1


@dataclasses.dataclass(frozen=True)
class Server:
    """What one socket of a server costs besides memory, in US dollars.

    - `cpu`: a Xeon Platinum 8260 (24 cores), Intel's recommended price in 2019.
    - `rest`: assumed: a share of board, chassis, power supply, disks and network.
    - `watts`: assumed: of a socket at work with all that belongs to it.
    - `years`, `per_kwh`, `overhead`: assumed: how long it runs, what energy costs, and
        how much more the building takes.
    """

    cpu: float = 4702.0
    rest: float = 1500.0
    watts: float = 300.0
    years: float = 3.0
    per_kwh: float = 0.10
    overhead: float = 1.5

    @property
    def energy(self) -> float:
        """Dollars of energy over its life."""
        hours = self.years * 365 * 24
        return self.watts / 1e3 * hours * self.overhead * self.per_kwh

    @property
    def dollars(self) -> float:
        """All but the memory."""
        return self.cpu + self.rest + self.energy


SERVER = Server()

# GiB of memory of a socket: what DRAM alone has there, and what the large networks
# take.
SIZES = (192, 768)


def memory_cost(slow: float, fast: float) -> float:
    """What memory costs at slow:fast, all of it in DRAM being 1."""
    return (slow / PRICE_RATIO + fast) / (slow + fast)


def total_cost(slow: float, fast: float, gib: float, server: Server = SERVER) -> float:
    """The same of the whole server, with so many GiB of memory."""
    dram = gib * MACHINE.device_price
    memory = memory_cost(slow, fast) * dram
    return (memory + server.dollars) / (dram + server.dollars)


@experiment("cost")
def cost(study: Study) -> Report:
    """What performance costs at each ratio."""
    cases = [study.posed(name) for name in study.conventional]
    fast = [study.all_fast(case).seconds for case in cases]
    chosen = ((4, 1),) if study.quick else ((8, 1), (4, 1), (1, 1))
    rows: list[tuple[Cell, ...]] = []
    totals: list[tuple[Cell, ...]] = []

    def add(slow: float, part: float, way: str, seconds: list[float]) -> None:
        speed = 1 - loss(fast, seconds) / 100
        relative = memory_cost(slow, part)
        ratio = f"{slow:g}:{part:g}"
        rows.append((ratio, way, speed, relative, speed / relative))
        whole = [total_cost(slow, part, gib) for gib in SIZES]
        views = (cell for c in whole for cell in (c, speed / c))
        totals.append((ratio, way, speed, *views))

    add(1, 0, "all slow", [study.all_slow(case).seconds for case in cases])
    for slow, part in chosen:
        for way, place in ways(study).items():
            found = [place(case, case.limit(slow / part)).seconds for case in cases]
            add(slow, part, way, found)
    add(0, 1, "all fast", fast)
    sizes = [
        name
        for gib in SIZES
        for name in (f"cost, {gib} GiB", f"performance per cost, {gib} GiB")
    ]
    return Report(
        "simulated performance beside cost",
        "performance per memory cost is 1.24 at 4:1 and 0.48 for first touch (derived "
        "from the losses of 27.7 % and 71.9 %); half of the memory cost is saved at "
        "8:1 for a slowdown of 30 to 60 %; over the total cost of ownership the saving "
        "disappears.",
        "performance is simulated; the price ratio of 2.1 is the authors'. The parts "
        f"of a server that are not memory are assumed: {SERVER.dollars:,.0f} dollars "
        f"per socket (CPU {SERVER.cpu:,.0f}, board and the rest {SERVER.rest:,.0f}, "
        f"energy of {SERVER.years:g} years {SERVER.energy:,.0f}), with DRAM at "
        f"{MACHINE.device_price} dollars per GiB.",
        (
            Table(
                "Performance and memory cost relative to all in DRAM, simulated",
                ("ratio", "way", "performance", "memory cost", "performance per cost"),
                tuple(rows),
            ),
            Table(
                "The same with the whole server, simulated",
                ("ratio", "way", "performance", *sizes),
                tuple(totals),
            ),
        ),
        lambda figure: _draw(figure, rows),
    )


def _draw(figure: Any, rows: list[tuple[Any, ...]]) -> None:
    axes = figure.subplots()
    ratios = list(dict.fromkeys(row[0] for row in rows))
    for way in ("first touch", "static", "synchronous"):
        found = [row for row in rows if row[1] == way or row[0] in ("1:0", "0:1")]
        at, speed = [ratios.index(r[0]) for r in found], [r[2] for r in found]
        axes.plot(at, speed, "o-", label=f"performance, {way}")
    costs = {row[0]: row[3] for row in rows}
    heights = [costs[r] for r in ratios]
    axes.bar(range(len(ratios)), heights, 0.5, color="lightgrey", label="memory cost")
    axes.set_xticks(range(len(ratios)), ratios)
    axes.set_xlabel("slow:fast")
    axes.set_ylabel("relative to all in DRAM (simulated)")
    axes.legend(fontsize=7)
