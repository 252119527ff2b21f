"""Plans for `"min"`, of which XLA packs some otherwise than predicted.

Where all is done to need little, buffers of one size follow one another closely, and
how they pack may hang on which of two copies XLA begins first. Nothing says so before
it has compiled the step. So another plan is tried then, and what took least stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from .plan import Plan


# By which part XLA may need more than was predicted.
_EXPECTED = 0.03


@dataclasses.dataclass
class Attempts:
    """The plans that were compiled.

    - `best`: the last one that took least, with its bytes.
    - `is_over`: whether no other is tried any more.
    """

    best: tuple[int, Plan] | None = None
    is_over: bool = False

    def following(
        self, plan: Plan, nbytes: int, other: Callable[[], Plan | None]
    ) -> Plan | None:
        """What to compile after a plan.

        **Arguments:**

        - `plan`, `nbytes`: what was compiled, and the device bytes that it took.
        - `other`: makes another plan, if there is one to be tried.

        **Returns:**

        A `Plan`, perhaps one that was compiled before; `None` if this one stands.
        """
        assert plan.device_bytes is not None
        # Of two that take as much, the one that may be as predicted.
        if self.best is None or nbytes <= self.best[0]:
            self.best = nbytes, plan
        if not self.is_over and nbytes > (1 + _EXPECTED) * plan.device_bytes:
            following = other()
            if following is not None:
                return following
        self.is_over = True
        _, best = self.best
        return None if best.schedule == plan.schedule else best
