"""What one tensor does under a schedule: where it stays, and what it copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from .problem import Tensor
from .schedule import Fetch, Store


Interval = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Footprint:
    """The intervals `[first, end)` of segments that a tensor has a part in.

    - `stays`: it is on the device.
    - `host`: it is on the host, or on its way there; `None` if it never is.
    - `out`, `into`: it is being copied to the host, or from it.
    - `faults`: rules that are broken, as the ends of sentences about the value.
    """

    stays: tuple[Interval, ...]
    host: Interval | None
    out: tuple[Interval, ...]
    into: tuple[Interval, ...]
    faults: tuple[str, ...]


def footprint(
    tensor: Tensor,
    recomputed: Collection[int],
    reads: Collection[int],
    stores: Sequence[Store],
    fetches: Sequence[Fetch],
) -> Footprint:
    """The footprint of a tensor.

    **Arguments:**

    - `tensor`: whose.
    - `recomputed`: segments before which it is computed again.
    - `reads`: segments before which something else is computed again from it.
    - `stores`, `fetches`: of this tensor.

    **Returns:**

    A `Footprint`.
    """
    faults: list[str] = []
    stays: list[Interval] = []
    into: list[Interval] = []
    if (stores or fetches) and not tensor.movable:
        faults.append("moves, but is not movable")
    if len(stores) > 1:
        faults.append("is written to the host more than once")
    arrivals: dict[int, Fetch | None] = dict.fromkeys(recomputed)
    for fetch in fetches:
        if fetch.use in arrivals:
            faults.append(f"arrives twice at segment {fetch.use}")
        arrivals[fetch.use] = fetch
    uses = sorted({*tensor.touches, *reads, *arrivals})
    leaves = {s.after: s for s in stores}
    for store in stores:
        if store.after not in uses or store.done <= store.after:
            faults.append("is stored when it is not on the device")
    on_host_from = min((s.done for s in stores), default=None)
    start = uses[0]
    for a, b in zip(uses, [*uses[1:], None], strict=True):
        arrival = arrivals.get(b, False) if b is not None else False
        if b is not None and arrival is False:
            if a in leaves and leaves[a].done > b:
                faults.append("is still being stored when it is used")
            continue
        end = leaves[a].done if a in leaves else a + 1
        stays.append((start, end))
        if b is None:
            break
        if arrival is None:
            # Computed again for segment b: made before b, so not there while the
            # roots of earlier recomputations are read.
            start = b
            continue
        assert isinstance(arrival, Fetch)
        start = arrival.start
        if start >= b or start < a + 1:
            faults.append(f"is fetched for {b} outside of its gap")
        if on_host_from is None or on_host_from > start:
            faults.append(f"is fetched for {b} before it is stored")
        into.append((start, b))
    if tensor.recipe is not None:
        gone = {(k, k + 1) for k in tensor.recipe.dissolved.intersection(recomputed)}
        stays = [stay for stay in stays if stay not in gone]
    if uses[0] != tensor.touches[0]:
        faults.append("is used before it is made")
    host = None
    if stores:
        last = max((f.use for f in fetches), default=stores[0].done)
        host = (stores[0].after + 1, last)
    out = tuple((s.after + 1, s.done) for s in stores)
    return Footprint(tuple(stays), host, out, tuple(into), tuple(faults))
