"""What a schedule does at each cut, in the step and in the bodies of its loops."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from ..solve.schedule import Fetch, Recompute, Schedule, Store
from ..trace import Program, Scope


@dataclasses.dataclass(frozen=True)
class Actions:
    """Values by what happens to them at one cut.

    - `begin_store`, `end_store`, `begin_fetch`, `end_fetch`: copies that run beside
        segments.
    - `store_at`, `fetch_at`: copies that everything waits for.
    - `fetch_ahead`: fetches for the next iteration.
    - `store_late`: what the last iteration made, and this one stores.
    - `again`: what is computed again for the segment after the cut, in program order.
    """

    begin_store: list[int] = dataclasses.field(default_factory=list)
    end_store: list[int] = dataclasses.field(default_factory=list)
    store_at: list[int] = dataclasses.field(default_factory=list)
    begin_fetch: list[int] = dataclasses.field(default_factory=list)
    end_fetch: list[int] = dataclasses.field(default_factory=list)
    fetch_at: list[int] = dataclasses.field(default_factory=list)
    fetch_ahead: list[int] = dataclasses.field(default_factory=list)
    store_late: list[int] = dataclasses.field(default_factory=list)
    again: list[int] = dataclasses.field(default_factory=list)


def carried_on_host(program: Program, schedule: Schedule) -> dict[int, int]:
    """What a schedule has on the host between steps.

    **Arguments:**

    - `program`, `schedule`: what runs, and what is planned.

    **Returns:**

    Arguments, each with the result that takes its place.
    """
    fetched = {fetch.value for fetch in schedule.fetches}
    return {v: r for v, r in program.carried.items() if v in fetched}


class Timetable:
    """The actions of a schedule by scope and cut: cut k precedes segment k.

    **Arguments:**

    - `program`, `schedule`: what runs, and what is planned.
    """

    def __init__(self, program: Program, schedule: Schedule):
        self._program, self._nest = program, program.nest
        self._end = len(program.segments)
        self._touches = program.touches() if schedule.streams else {}
        self._actions: dict[tuple[Scope, int], Actions] = defaultdict(Actions)
        self._moved: dict[Scope, list[int]] = defaultdict(list)
        self._ahead: dict[Scope, list[int]] = defaultdict(list)
        self._late: dict[Scope, list[int]] = defaultdict(list)
        self._kept: dict[Scope, list[int]] = defaultdict(list)
        # By scope, values with the cut at which they come back for the last time.
        self._back: dict[Scope, dict[int, int]] = defaultdict(dict)
        self.again: dict[int, list[int]] = defaultdict(list)
        for item in sorted(schedule.recomputes):
            self.again[item.use].append(item.value)
            place = self._nest.place(item.value, item.use)
            self._actions[place, item.use].again.append(item.value)
            self._arrives(item)
        for actions in self._actions.values():
            actions.again.sort(key=self._program_order)
        crossing = self._crossing(schedule)
        for store in (*schedule.stores, *self._streamed_out(schedule)):
            self._store(store, store.value in crossing)
        for fetch in (*schedule.fetches, *self._streamed_in(schedule)):
            self._fetch(fetch)

    def at(self, scope: Scope, cut: int) -> Actions:
        """What happens in a scope at a cut."""
        return self._actions.get((scope, cut), Actions())

    def returning(self, scope: Scope, cut: int) -> set[int]:
        """Values that are brought back or computed again in a scope after a cut."""
        return {value for value, use in self._back[scope].items() if use > cut}

    def kept(self, loop: int) -> list[int]:
        """Values that a loop stacks on the device for another one."""
        return self._kept[loop]

    def moved(self, loop: int) -> list[int]:
        """Values that a loop stacks on the host for another one."""
        return self._moved[loop]

    def late(self, loop: int) -> list[int]:
        """Of those moved, the ones that each iteration leaves to the next to store."""
        return self._late[loop]

    def ahead(self, loop: int) -> list[int]:
        """Values that each iteration of a loop fetches for the next."""
        return self._ahead[loop]

    def _crossing(self, schedule: Schedule) -> set[int]:
        # Where a value is used first in each loop after the one that makes it.
        nest, values = self._nest, self._program.values
        # A loop inside of that may be all that uses it, as what it begins with.
        uses = list(nest.borders())
        for segment in self._program.segments:
            again = self.again[segment.index]
            fragments = (self._program.recomputations[v] for v in again)
            for fragment in (segment.body, *fragments):
                uses += [(value, segment.index) for value in fragment.reads]
        first: dict[tuple[int, Scope], int] = {}
        for value, use in sorted(uses, key=lambda u: u[1]):
            place = nest.place(value, use)
            if place != values[value].loop:
                first.setdefault((value, place), use)
        arrivals = {(i.value, i.use) for i in (*schedule.fetches, *schedule.recomputes)}
        kept = {v for (v, _), use in first.items() if (v, use) not in arrivals}
        for value in sorted(kept - self._program.resident):
            self._kept[values[value].loop].append(value)
        return {value for value, _ in first}

    def _store(self, store: Store, is_crossing: bool) -> None:
        # Of what is carried, what takes its place is stored.
        value = self._program.carried.get(store.value, store.value)
        store = dataclasses.replace(store, value=value)
        scope = self._program.values[store.value].loop
        first, end = store.window
        if store.is_late:
            self._actions[scope, first].store_late.append(store.value)
            self._moved[scope].append(store.value)
            self._late[scope].append(store.value)
        elif is_crossing:  # there when the iteration is over, at the latest
            self._actions[scope, first].begin_store.append(store.value)
            self._moved[scope].append(store.value)
        elif first == end < self._end:
            self._actions[scope, first].store_at.append(store.value)
        else:
            self._actions[scope, first].begin_store.append(store.value)
            if end < self._end:  # by itself a step ends when all is done
                self._actions[scope, end].end_store.append(store.value)

    def _arrives(self, item: Fetch | Recompute) -> None:
        back = self._back[self._nest.place(item.value, item.use)]
        back[item.value] = max(item.use, back.get(item.value, 0))

    def _fetch(self, fetch: Fetch) -> None:
        self._arrives(fetch)
        scope = self._nest.place(fetch.value, fetch.use)
        first, end = fetch.window
        if fetch.is_ahead:
            self._actions[scope, first].fetch_ahead.append(fetch.value)
            self._ahead[scope].append(fetch.value)
        elif first == end:
            self._actions[scope, first].fetch_at.append(fetch.value)
        else:
            self._actions[scope, first].begin_fetch.append(fetch.value)
            if end < fetch.use:
                self._actions[scope, end].end_fetch.append(fetch.value)

    # No kernel of XLA's reads host memory or writes there: what a segment streams is
    # fetched before it, or stored after it.

    def _streamed_out(self, schedule: Schedule) -> list[Store]:
        made = [s for s in schedule.streams if s.at == self._touches[s.value][0]]
        return [Store(s.value, s.at, s.at + 1) for s in made]

    def _streamed_in(self, schedule: Schedule) -> list[Fetch]:
        read = [s for s in schedule.streams if s.at != self._touches[s.value][0]]
        return [Fetch(s.value, s.at, s.at) for s in read]

    def _program_order(self, value: int) -> int:
        producer = self._program.values[value].producer
        assert producer is not None
        return producer
