"""Running the gradient of a weight after that of its input.

JAX transposes `y = f(x) @ w` into the gradient of `w`, which reads `f(x)`, followed by
that of `f(x)`, and by element-wise work that reads `x`. If `f(x)` has to be computed
again, that is a pass over `x` for it alone. In the other order the element-wise work
and `f(x)` come out of the same pass (XLA fuses what reads the same operands), and only
then does the weight's gradient need it. What that costs is memory: `x`, `f(x)` and the
gradients of both are there at once.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from .. import compat
from .flat import Flat, FlatEquation
from .heavy import heavy_equations
from .primitives import VIEWS, Kind, kind_of


class Order(enum.Enum):
    """The order in which the equations of a step are run."""

    AS_TRACED = "as traced"
    WEIGHTS_LAST = "gradients of weights after those of inputs"


def postpone(flat: Flat) -> Flat:
    """Moves such kernels behind the fused work that follows their sibling.

    Two neighbouring kernels are siblings if they read a value in common (the gradient
    of `y`) and not each other's results. The first is moved, up to the next kernel, if
    it reads something fused and made before the kernel that precedes it.

    **Arguments:**

    - `flat`: a flattened step.

    **Returns:**

    A `Flat` with the same equations in another order that respects their operands.
    """
    kinds = [kind_of(e.eqn) for e in flat.equations]
    heavy = heavy_equations(flat, kinds)
    kernels = [i for i, is_heavy in enumerate(heavy) if is_heavy]
    producer = {v: i for i, e in enumerate(flat.equations) for v in e.outputs}

    def origins(index: int) -> set[int]:
        return {_origin(flat.equations, producer, v) for v in _operands(flat, index)}

    order = list(range(len(flat.equations)))
    at = 1
    while at + 1 < len(kernels):
        before, first, second = kernels[at - 1 : at + 2]
        end = kernels[at + 2] if at + 2 < len(kernels) else len(order)
        theirs = origins(second)
        waiting = [
            v
            for v in origins(first) - theirs
            if producer.get(v, before) < before and kinds[producer[v]] is Kind.FUSED
        ]
        window = range(first, end)
        if (
            waiting
            and origins(first) & theirs
            and not any(compat.has_effects(flat.equations[i].eqn) for i in window)
            and len({flat.equations[i].loop for i in (before, *window)}) == 1
        ):
            late = _dependents(flat, first, window)
            if second not in late:
                order[first:end] = [i for i in window if i not in late] + late
                at += 1
        at += 1
    equations = tuple(flat.equations[i] for i in order)
    return dataclasses.replace(flat, equations=equations)


def _operands(flat: Flat, index: int) -> list[int]:
    return [i for i in flat.equations[index].inputs if isinstance(i, int)]


def _origin(
    equations: Sequence[FlatEquation], producer: dict[int, int], value: int
) -> int:
    # The value that a kernel really reads, behind views of it.
    while value in producer:
        maker = equations[producer[value]]
        if maker.eqn.primitive.name not in VIEWS:
            break
        (operand,) = maker.inputs
        if not isinstance(operand, int):
            break  # a view of a literal
        value = operand
    return value


def _dependents(flat: Flat, first: int, window: range) -> list[int]:
    # The equation and all in the window that need it, in order.
    late = [first]
    made = set(flat.equations[first].outputs)
    for index in window[1:]:
        if made.intersection(_operands(flat, index)):
            late.append(index)
            made.update(flat.equations[index].outputs)
    return late
