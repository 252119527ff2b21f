"""From a program and a schedule to a function that XLA runs as planned.

XLA:GPU schedules copies and kernels by its own lights: a bare `device_put` to the
host and back is deleted, fetches all start before the first backward operation, and
weight gradients are put off to the end of the step. What binds it is an
`optimization_barrier` over everything that crosses a cut: the values the next segment
reads, the values the last one made, the host copies to be fetched from here and the
host copies that have to be finished here. Barriers survive until after scheduling, so
segments run in order, a fetch overlaps everything from its cut to its use, and a store
everything up to the cut that names it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax.experimental.layout import Layout, with_layout_constraint

from ..solve.schedule import Fetch, Recompute, Schedule, Store
from ..trace import Fragment, Program, evaluate


def emit(program: Program, schedule: Schedule) -> Callable[..., list[Any]]:
    """The flat function of a program under a schedule.

    **Arguments:**

    - `program`: the traced step.
    - `schedule`: what moves, and what is computed again, and when.

    **Returns:**

    A function of the flat arguments to the list of flat results. It is meant to be
    called under `jax.jit`.
    """

    def run(*arguments: Any) -> list[Any]:
        return _Emission(program, schedule).run(arguments)

    return run


class _Emission:
    """One walk over the segments, with the current handle of every value."""

    def __init__(self, program: Program, schedule: Schedule):
        self.program = program
        # Keyed by the cut at which something happens: cut k precedes segment k.
        self.begin_store: dict[int, list[int]] = defaultdict(list)
        self.end_store: dict[int, list[int]] = defaultdict(list)
        self.begin_fetch: dict[int, list[int]] = defaultdict(list)
        self.end_fetch: dict[int, list[int]] = defaultdict(list)
        # Copies that everything waits for: done at the cut at which they begin.
        self.store_at: dict[int, list[int]] = defaultdict(list)
        self.fetch_at: dict[int, list[int]] = defaultdict(list)
        for store in (*schedule.stores, *self._streamed_out(schedule)):
            first, end = store.window
            if first == end:
                self.store_at[first].append(store.value)
            else:
                self.begin_store[first].append(store.value)
                self.end_store[end].append(store.value)
        for fetch in (*schedule.fetches, *self._streamed_in(schedule)):
            first, end = fetch.window
            if first == end:
                self.fetch_at[first].append(fetch.value)
            else:
                self.begin_fetch[first].append(fetch.value)
                if end < fetch.use:
                    self.end_fetch[end].append(fetch.value)
        variants = {p.segment: p.variant for p in schedule.picks}
        self.bodies = [s.body.by(variants.get(s.index, 0)) for s in program.segments]
        self.again: dict[int, list[int]] = defaultdict(list)
        for item in sorted(schedule.recomputes, key=self._program_order):
            self.again[item.use].append(item.value)
        self.last_read: dict[int, int] = {}
        for k, body in enumerate(self.bodies):
            fragments = (program.recomputations[v] for v in self.again[k])
            for fragment in (body, *fragments):
                self.last_read.update(dict.fromkeys(fragment.reads, k))
        self.returned = program.returned
        self.device: dict[int, Any] = dict(program.constants)
        self.host: dict[int, Any] = {}

    # No kernel of XLA's reads host memory or writes there: what a segment streams is
    # fetched before it, or stored after it.

    def _streamed_out(self, schedule: Schedule) -> list[Store]:
        made = self._made_in
        streams = [s for s in schedule.streams if s.at == made(s.value)]
        return [Store(s.value, s.at, s.at + 1) for s in streams]

    def _streamed_in(self, schedule: Schedule) -> list[Fetch]:
        made = self._made_in
        streams = [s for s in schedule.streams if s.at != made(s.value)]
        return [Fetch(s.value, s.at, s.at) for s in streams]

    def _made_in(self, value: int) -> int:
        return self.program.touches()[value][0]

    def _program_order(self, item: Recompute) -> int:
        producer = self.program.values[item.value].producer
        assert producer is not None
        return producer

    def run(self, arguments: Sequence[Any]) -> list[Any]:
        self.device.update(zip(self.program.arguments, arguments, strict=True))
        made: tuple[int, ...] = ()
        for k, body in enumerate(self.bodies):
            again = self.again[k]
            fragments = [self.program.recomputations[v] for v in again]
            needed = set(body.reads).union(*(f.reads for f in fragments))
            needed -= set(again)
            fetched, stored = self.fetch_at[k], self.store_at[k]
            needed.difference_update(fetched)
            coming = self.begin_fetch[k] + fetched
            # What is stored right here is on the host only after this cut.
            known = [v for v in coming if v not in stored] + self.end_store[k]
            leaving = self.begin_store[k] + stored
            self._cut({*needed, *made, *leaving, *self.end_fetch[k]}, known)
            for value in leaving:
                self._to_host(value)
            self._wait({*needed, *made}.difference(stored), stored)
            for value in coming:
                self._to_device(value)
            needed.update(fetched)
            self._wait(needed, (), fetched)
            for value, fragment in zip(again, fragments, strict=True):
                self._evaluate(fragment)
                # XLA joins what reads the same; anything else is kept apart.
                if (value, k) not in self.program.joined:
                    self._cut({*needed, *again[: again.index(value) + 1]}, ())
            self._evaluate(body)
            wanted = [v for v in again if self.last_read.get(v, k) > k]
            made = (*body.writes, *wanted)
            if body is not self.bodies[-1]:
                self._settle(body.writes)
        return [
            self.device[r] if isinstance(r, int) else r.val
            for r in self.program.results
        ]

    def _to_host(self, value: int) -> None:
        self.host[value] = jax.device_put(self.device[value], jax.memory.Space.Host)

    def _to_device(self, value: int) -> None:
        self.device[value] = jax.device_put(self.host[value], jax.memory.Space.Device)

    def _wait(
        self, needed: Iterable[int], stored: Sequence[int], fetched: Sequence[int] = ()
    ) -> None:
        # Nothing that follows a copy with no time beside it starts before its end.
        if stored or fetched:
            self._cut({*needed, *fetched}, stored)

    def _settle(self, made: Sequence[int]) -> None:
        # A result made early in a layout of XLA's choosing would wait in temporary
        # memory until the end of the step to be brought into the layout it is
        # returned in: that is done here instead.
        for value in made:
            array = self.device[value]
            if value in self.returned and array.ndim > 1:
                layout = Layout(tuple(range(array.ndim)))
                self.device[value] = with_layout_constraint(array, layout)

    def _evaluate(self, fragment: Fragment) -> None:
        read = self.device.__getitem__
        self.device.update(evaluate(self.program, fragment, read))

    def _cut(self, device: Iterable[int], host: Iterable[int]) -> None:
        on_device, on_host = sorted(device), sorted(set(host))
        if not on_device and not on_host:
            return
        handles = [self.device[v] for v in on_device] + [self.host[v] for v in on_host]
        handles = jax.lax.optimization_barrier(handles)
        self.device.update(zip(on_device, handles, strict=False))
        self.host.update(zip(on_host, handles[len(on_device) :], strict=True))
