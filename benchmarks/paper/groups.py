"""What a decision about a tensor may depend on, divided into spans for tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from .fates import Fate


@dataclasses.dataclass(frozen=True)
class Group:
    """What a decision may depend on.

    - `name`: what it is.
    - `of`: of a tensor.
    - `borders`: where each span begins; the last one has no end.
    """

    name: str
    of: Callable[[Fate], float]
    borders: tuple[float, ...]

    @property
    def spans(self) -> tuple[str, ...]:
        """The spans, in words."""
        pairs = zip(self.borders, self.borders[1:], strict=False)
        return *(f"{a:g} to {b:g}" for a, b in pairs), f"{self.borders[-1]:g} up"

    def divided(self, found: Sequence[Fate]) -> list[list[Fate]]:
        """Tensors by span."""
        out: list[list[Fate]] = [[] for _ in self.borders]
        for fate in found:
            at = sum(self.of(fate) >= border for border in self.borders) - 1
            out[at].append(fate)
        return out


PRICE = Group("price, ms per GB", lambda f: f.price, (0, 50, 85, 100, 110))
READ = Group("of that, to be read there", lambda f: f.read, (0, 1, 17, 33))
MADE = Group("to be made there, ms per GB", lambda f: f.born, (0, 1, 80, 200))
DEPTH = Group(
    "made at, percent of the forward pass", lambda f: 100 * f.depth, (0, 20, 40, 60, 80)
)
WAITS = Group(
    "waits for, percent of the step", lambda f: 100 * f.waits, (0, 20, 40, 60, 80)
)
SIZE = Group("size, MB", lambda f: f.nbytes / 1e6, (0, 50, 200, 1000, 5000))
