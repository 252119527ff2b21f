"""IO configurations: which operands and results of a fragment are in host memory.

AutoTM times each kernel with its inputs and outputs in every admissible combination of
the two memories (section 3.2 of the paper). Here a kernel cannot read host memory: a
fragment whose operand is in `pinned_host` fetches it first, and stores a result that
is wanted there.
"""

from __future__ import annotations

import dataclasses
import itertools

from .. import compat
from ..trace import Fragment, Program


# Values below this fraction of the program's largest tensor are not worth a copy.
_SMALLEST_MOVED = 1 / 1500


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Positions in `Fragment.reads` and `Fragment.writes` of what is in host memory."""

    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.reads and not self.writes:
            return "all on the device"
        reads = ", ".join(f"operand {i}" for i in self.reads)
        writes = ", ".join(f"result {i}" for i in self.writes)
        return " and ".join(filter(None, (reads, writes))) + " on the host"


ON_DEVICE = Configuration()


@dataclasses.dataclass(frozen=True)
class Configurations:
    """The admissible configurations of a fragment.

    - `kept`: those to measure; the first has everything on the device.
    - `pruned`: how many more there are, beyond the cap.
    - `fixed`: how many operands and results never move: arguments and results of the
        step (a donated argument and the result in its place are one buffer), keys,
        types of less than a byte, and what is too small to be worth a copy.
    """

    kept: tuple[Configuration, ...]
    pruned: int
    fixed: int


def configurations(program: Program, fragment: Fragment, most: int) -> Configurations:
    """Enumerates the configurations of a fragment, those with fewest copies first.

    **Arguments:**

    - `program`, `fragment`: what runs.
    - `most`: the cap, at least 1.

    **Returns:**

    `Configurations`.
    """
    stays = program.resident | program.with_results
    sizes = [program.values[v].nbytes for v in program.touches()]
    smallest = max(1.0, _SMALLEST_MOVED * max(sizes, default=0))

    def moves(value: int) -> bool:
        aval = program.values[value].aval
        if value in stays or program.values[value].nbytes < smallest:
            return False
        return not compat.is_key_type(aval) and compat.itemsize_bits(aval.dtype) >= 8

    places = [(True, i) for i, v in enumerate(fragment.reads) if moves(v)]
    places += [(False, i) for i, v in enumerate(fragment.writes) if moves(v)]
    chosen = itertools.chain.from_iterable(
        itertools.combinations(places, n) for n in range(len(places) + 1)
    )
    kept = tuple(
        Configuration(
            tuple(i for is_read, i in places if is_read),
            tuple(i for is_read, i in places if not is_read),
        )
        for places in itertools.islice(chosen, most)
    )
    fixed = len(fragment.reads) + len(fragment.writes) - len(places)
    return Configurations(kept, 2 ** len(places) - len(kept), fixed)
