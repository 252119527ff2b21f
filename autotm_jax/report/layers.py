"""Which layer of a model a value belongs to, as far as the program shows layers.

The layers of a model that is written as a loop run the same lines again and again: the
n-th value that a line makes belongs to the n-th layer. Of all lines those count that
take turns, and together make most of the bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from ..solve import Tensor
    from ..trace import Program


# Lines that take turns are a model's layers if they make this part of the bytes.
_MOST = 0.5


def layers_of(program: Program, tensors: Sequence[Tensor]) -> dict[int, int]:
    """The layers of some values of a program.

    **Arguments:**

    - `program`: the program.
    - `tensors`: what is asked about.

    **Returns:**

    Layers by value, counted from 0; without the values that belong to none. Empty if
    the program does not repeat itself.
    """
    starts = _starts(program, tensors)
    if not starts:
        return {}
    end = 2 * starts[-1] - starts[-2]
    out: dict[int, int] = {}
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for tensor in tensors:
        made, *_, last = tensor.touches
        if starts[0] <= made < end:
            layer = bisect_right(starts, made) - 1
            out[tensor.value] = layer
            votes[last][layer] += 1
    # On the way back, a value belongs to the layer whose values are read when it is
    # made.
    for tensor in tensors:
        found = votes.get(tensor.touches[0])
        if tensor.value not in out and found:
            out[tensor.value] = found.most_common(1)[0][0]
    return out


def _starts(program: Program, tensors: Sequence[Tensor]) -> list[int]:
    # The first segments of the layers.
    classes: dict[str, list[Tensor]] = defaultdict(list)
    for tensor in sorted(tensors, key=lambda t: t.touches[0]):
        classes[program.values[tensor.value].describe()].append(tensor)
    made = [[t.touches[0] for t in members] for members in classes.values()]
    nbytes = [sum(t.nbytes for t in members) for members in classes.values()]
    best: list[int] = []
    most = _MOST * sum(nbytes)
    for starts in made:
        if len(set(starts)) == len(starts) > 1:
            pairs = zip(made, nbytes, strict=True)
            together = sum(size for at, size in pairs if _takes_turns(starts, at))
            if together > most:
                best, most = starts, together
    return best


def _takes_turns(starts: list[int], at: list[int]) -> bool:
    if len(at) != len(starts):
        return False
    ends = [*starts[1:], 2 * starts[-1] - starts[-2]]
    turns = zip(starts, at, ends, strict=True)
    return all(start <= k < end for start, k, end in turns)
