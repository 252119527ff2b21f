"""What an experiment found: tables and a figure, next to what the paper says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from autotm_jax.report.plots import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION


Cell = str | int | float | None

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, GREY)
"""Of lines and bars: Okabe and Ito's, which nearly everyone can tell apart."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of figures.

    - `title`: what they are.
    - `columns`: their names, with units.
    - `rows`: a cell per column; `None` where there is no figure.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), (self.title, row)

    def markdown(self) -> str:
        """The table as Markdown, with its title above."""
        is_text = [all(isinstance(c, str) for c in column) for column in self._turned()]
        rules = ["---" if text else "---:" for text in is_text]
        body = [[_shown(cell) for cell in row] for row in self.rows]
        lines = [" | ".join(row) for row in (self.columns, rules, *body)]
        return "\n".join([f"**{self.title}**", "", *(f"| {line} |" for line in lines)])

    def column(self, name: str) -> list[Cell]:
        """The cells of a column."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def _turned(self) -> Sequence[Sequence[Cell]]:
        return [[row[i] for row in self.rows] for i in range(len(self.columns))]


@dataclasses.dataclass(frozen=True)
class Report:
    """What an experiment found.

    - `title`: what it is about. It says whether figures are simulated.
    - `claim`: what the paper, or its authors, say.
    - `differs`: what is different here, and why.
    - `tables`: what was found.
    - `draw`: draws the same on a matplotlib `Figure`, if there is something to draw.
    """

    title: str
    claim: str
    differs: str
    tables: tuple[Table, ...]
    draw: Callable[[Any], None] | None = None

    def markdown(self, name: str) -> str:
        """The report as Markdown, under a heading with the experiment's name."""
        parts = [
            f"## {name}: {self.title}",
            f"The paper: {self.claim}",
            f"What differs: {self.differs}",
            *(table.markdown() for table in self.tables),
        ]
        return "\n\n".join(parts)

    def as_json(self, name: str) -> dict[str, Any]:
        """The report as what `json` can write."""
        return {
            "experiment": name,
            "title": self.title,
            "paper": self.claim,
            "differs": self.differs,
            "tables": [dataclasses.asdict(table) for table in self.tables],
        }


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)
