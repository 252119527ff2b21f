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

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import compat
from ..solve.schedule import Schedule
from ..trace import (
    Fragment,
    Loop,
    Program,
    Scope,
    as_in_memory,
    evaluate,
    from_memory,
    held,
    in_order,
    recomputed_together,
)
from .iteration import (
    Iteration,
    Stacks,
    fetched,
    filled,
    first_of,
    kept,
    looped,
    next_of,
)
from .timetable import Actions, Timetable, carried_on_host


def emit(program: Program, schedule: Schedule) -> Callable[..., list[Any]]:
    """The flat function of a program under a schedule.

    **Arguments:**

    - `program`: the traced step.
    - `schedule`: what moves, and what is computed again, and when.

    **Returns:**

    A function of the flat arguments to the list of flat results. It is meant to be
    called under `jax.jit`. What is carried on the host is taken from there, and
    results that take its place are left there.
    """

    def run(*arguments: Any) -> list[Any]:
        return _Emission(program, schedule).run(arguments)

    return run


class _Emission:
    """One walk over the segments, with the current handle of every value."""

    def __init__(self, program: Program, schedule: Schedule):
        self.program, self.nest = program, program.nest
        self.timetable = Timetable(program, schedule)
        variants = {p.segment: p.variant for p in schedule.picks}
        self.bodies = [s.body.by(variants.get(s.index, 0)) for s in program.segments]
        self.last_read: dict[int, int] = {}
        for k, body in enumerate(self.bodies):
            again = self.timetable.again[k]
            fragments = (program.recomputations[v] for v in again)
            for fragment in (body, *fragments):
                self.last_read.update(dict.fromkeys(fragment.reads, k))
        self.returned = program.returned
        self.on_host = carried_on_host(program, schedule)
        self.resident = program.resident - self.on_host.keys()
        self.scope: Scope = None
        self.device: dict[int, Any] = dict(program.constants)
        self.host: dict[int, Any] = {}
        # Of what one loop leaves for another: the stacks.
        self.stacks: dict[int, Any] = {}
        self.host_stacks: dict[int, Any] = {}
        # What the last iteration left to a next one that there is not.
        self.lasts: dict[int, Any] = {}
        # The smallest array that has gone through the last cut.
        self.since: Any = None

    def run(self, arguments: Sequence[Any]) -> list[Any]:
        every = dict(zip(self.program.arguments, arguments, strict=True))
        for value in self.on_host:
            # For a device that is not here, JAX knows no memory but its own.
            array = every.pop(value)
            is_there = compat.is_on_host(array.aval)
            host = jax.memory.Space.Host
            self.host[value] = array if is_there else jax.device_put(array, host)
        self.device.update(every)
        end = len(self.bodies)
        self._walk(0, end, None)
        self._prepare(end, (), (), None)
        self.device.update({v: self.host[v] for v in self.on_host.values()})
        return [self._read(r) for r in self.program.results]

    def _read(self, atom: Any) -> Any:
        return self.device[atom] if isinstance(atom, int) else atom.val

    def _typed(self, atom: Any, like: int) -> Any:
        # A literal does not know whether it is weakly typed.
        if isinstance(atom, int):
            return self.device[atom]
        aval = self.program.values[like].aval
        scalar = np.asarray(atom.val).item() if aval.weak_type else atom.val
        return jnp.asarray(scalar, None if aval.weak_type else aval.dtype)

    def _walk(self, first: int, end: int, iteration: Iteration | None) -> None:
        # The segments `[first, end)` in this scope, and the loops among them.
        made: tuple[int, ...] = ()
        k = first
        while k < end:
            inner = self.nest.child(self.scope, k)
            if inner is None:
                made = self._segment(k, made, iteration)
                k += 1
            else:
                made = self._loop(self.program.loops[inner], made, iteration)
                k = self.nest.ranges[inner][1]

    def _segment(
        self, k: int, made: tuple[int, ...], iteration: Iteration | None
    ) -> tuple[int, ...]:
        body = self.bodies[k]
        again = self._prepare(k, body.reads, made, iteration)
        self._evaluate(body)
        wanted = [v for v in again if self.last_read.get(v, k) > k]
        if body is not self.bodies[-1]:
            self._settle(body.writes)
        return (*body.writes, *wanted)

    def _loop(
        self, loop: Loop, made: tuple[int, ...], around: Iteration | None
    ) -> tuple[int, ...]:
        first, end = self.nest.ranges[loop.index]
        initial = [c.initial for c in loop.carries]
        taken = {
            v
            for k in range(first, end)
            for v in self.bodies[k].reads
            if self.nest.place(v, k) == self.scope
        }
        taken.update(filter(_is_value, loop.constants))
        taken -= self.resident
        self._prepare(first, taken.union(filter(_is_value, initial)), made, around)
        outside = self._handles()
        moved, late = self.timetable.moved(loop.index), self.timetable.late(loop.index)
        ahead = self.timetable.ahead(loop.index)
        stacks = Stacks(self.program, loop, self.timetable.kept(loop.index), moved)
        # Of what the last iteration made there is no copy on the host.
        number = first_of(loop)
        first_slices = [
            self.lasts[v] if v in self.lasts else self._slice(v, loop, number)
            for v in ahead
        ]

        def body(state: Any, counter: Any) -> tuple[Any, Any]:
            carried, buffers, slices, left = state
            self._resume(outside, loop.index)
            self.device[loop.counter] = counter
            self.device.update(zip(loop.entered, carried, strict=True))
            self.device.update(zip(ahead, slices, strict=True))
            iteration = Iteration(stacks, buffers, dict(zip(late, left, strict=True)))
            self._walk(first, end, iteration)
            for value in self.timetable.at(loop.index, end).begin_store:
                self._to_host(value, iteration)
            counter = self.device[loop.counter]
            buffers = iteration.finish(self._read, counter)
            carried = [self._typed(c.after, c.before) for c in loop.carries]
            slices = [iteration.fetched[v] for v in ahead]
            left = [self.device[v] for v in late]
            return (carried, buffers, slices, left), iteration.results(self._read)

        start = [self._typed(c.initial, c.before) for c in loop.carries]
        anchor = self._anchor(initial)
        buffers = stacks.buffers(anchor, self._read)
        values = [self.program.values[v] for v in late]
        nothing = [held(filled(v.aval, anchor), v.sharding) for v in values]
        state = start, buffers, first_slices, nothing
        unroll = 1 if moved or ahead else loop.unroll
        constants = [self._read(c) for c in loop.constants]
        (carried, buffers, _, left), results = looped(
            loop, body, state, constants, unroll
        )
        self._resume(outside, loop.parent)
        every = dict(zip(stacks.written, buffers, strict=True))
        every.update(zip(stacks.returned, results, strict=False))
        whole = [every[i] for i in range(len(stacks.each))]
        self.device.update(zip((c.result for c in loop.carries), carried, strict=True))
        self.device.update(zip((s.whole for s in loop.stacks), whole, strict=False))
        self.stacks.update(zip(stacks.kept, whole[len(loop.stacks) :], strict=True))
        self.lasts.update(zip(late, left, strict=True))
        self.host_stacks.update(
            zip(moved, results[len(stacks.returned) :], strict=True)
        )
        return loop.left_with

    def _handles(self) -> tuple[dict[int, Any], ...]:
        return self.device, self.host, self.stacks, self.host_stacks, self.lasts

    def _resume(self, handles: Sequence[dict[int, Any]], scope: Scope) -> None:
        # What is made in the body of a loop is not known outside of it.
        device, host, stacks, host_stacks, lasts = map(dict, handles)
        self.device, self.host, self.scope = device, host, scope
        self.since = None
        self.stacks, self.host_stacks, self.lasts = stacks, host_stacks, lasts

    def _anchor(self, initial: Sequence[Any]) -> Callable[[Any], Any]:
        handles = [self.device[v] for v in filter(_is_value, initial)]
        handles = [h for h in handles if not compat.is_key_type(h.aval)]
        if not handles:
            return lambda scalar: scalar
        tie = min(handles, key=lambda h: h.size)
        return lambda scalar: jax.lax.optimization_barrier((scalar, tie))[0]

    def _prepare(
        self,
        k: int,
        reads: Iterable[int],
        made: tuple[int, ...],
        iteration: Iteration | None,
    ) -> list[int]:
        # Cut k, with what begins or ends there. What is computed again is returned.
        now = self.timetable.at(self.scope, k)
        fragments = [self.program.recomputations[v] for v in now.again]
        needed = set(reads).union(*(f.reads for f in fragments))
        needed.difference_update(now.again, now.fetch_at)
        # What comes from outside of a loop goes through the cuts inside, too: else XLA
        # would keep what several segments make of it.
        inside = {v for v in needed if self.nest.place(v, k) == self.scope}
        slices = {v for v in inside if v in self.stacks and v not in self.device}
        needed -= slices
        coming = [*now.begin_fetch, *now.fetch_at]
        # What is stored right here is on the host only after this cut.
        known = [v for v in coming if v not in now.store_at] + now.end_store
        leaving = [*now.begin_store, *now.store_at]
        self._cut({*needed, *made, *leaving, *now.end_fetch}, known)
        if iteration is not None:
            returning = self.timetable.returning(self.scope, k)
            iteration.write({*made, *needed}, self._read, self._counter, returning)
        for value in leaving:
            self._to_host(value, iteration)
        # What is brought here waits, too, as it may take the place of what leaves.
        after = now.store_at and [*now.store_at, *coming]
        self._wait({*needed, *made}.difference(now.store_at), after)
        for value in coming:
            self._to_device(value)
        if iteration is not None:
            self._across(now, iteration)
        needed.update(now.fetch_at)
        self._wait(needed, (), now.fetch_at)
        for value in slices:
            self.device[value] = kept(self.stacks[value], self._here, self._counter)
        needed |= slices
        together = recomputed_together(self.program, now.again)
        for value in now.again:
            if value in together:
                self._evaluate(together[value])
            # XLA joins what reads the same; anything else is kept apart.
            if (value, k) not in self.program.joined:
                self._cut({*needed, *now.again[: now.again.index(value) + 1]}, ())
        return now.again

    def _across(self, now: Actions, iteration: Iteration) -> None:
        # What one iteration does for another.
        for value in now.store_late:
            iteration.on_host[value] = self._stored(value, iteration.left[value])
        for value in now.fetch_ahead:
            # What is stored late is stacked one iteration on: in the loop that runs
            # the other way, where the present one would be.
            is_late = value in self.lasts
            following = next_of(self._here, self._counter)
            counter = self._counter if is_late else following
            iteration.fetched[value] = self._slice(value, self._here, counter)

    @property
    def _here(self) -> Loop:
        assert self.scope is not None
        return self.program.loops[self.scope]

    @property
    def _counter(self) -> Any:
        return self.device[self._here.counter]

    def _to_host(self, value: int, iteration: Iteration | None) -> None:
        moved = self._stored(value, self.device[value])
        if iteration is not None and value in iteration.stacks.moved:
            iteration.on_host[value] = moved
        else:
            self.host[value] = moved

    def _to_device(self, value: int) -> None:
        if value in self.host_stacks:
            self.device[value] = self._slice(value, self._here, self._counter)
        else:
            host = self.host[value]
            array = jax.device_put(host, jax.memory.Space.Device)
            self.device[value] = self._seen(value, array)

    # On the host everything is in row-major order. What is in another one on the device
    # would be turned there before it is stored, and once more when it has come back.

    def _stored(self, value: int, array: Any) -> Any:
        viewed = as_in_memory(array, self.program.turned(value))
        return jax.device_put(viewed, jax.memory.Space.Host)

    def _seen(self, value: int, array: Any) -> Any:
        return from_memory(array, self.program.turned(value))

    def _slice(self, value: int, loop: Loop, counter: Any) -> Any:
        return self._seen(value, fetched(self.host_stacks[value], loop, counter))

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
                sharding = self.program.values[value].sharding
                self.device[value] = in_order(array, sharding)

    def _evaluate(self, fragment: Fragment) -> None:
        read, since = self.device.__getitem__, self.since
        self.device.update(evaluate(self.program, fragment, read, since))

    def _cut(self, device: Iterable[int], host: Iterable[int]) -> None:
        # A stack on the host cannot go through a barrier in a loop.
        on_host = sorted({v for v in host if v in self.host})
        on_device, self.since = sorted(device), None
        if not on_device and not on_host:
            return
        if self.scope is not None:
            # With its counter, a loop's slices of stacks are made after the cut, too.
            on_device.append(self._here.counter)
        handles = [self.device[v] for v in on_device] + [self.host[v] for v in on_host]
        handles = jax.lax.optimization_barrier(handles)
        self.device.update(zip(on_device, handles, strict=False))
        # Else XLA would have what one segment wants whole on every device whole for
        # all that follow.
        for value in on_device:
            sharding = self.program.values[value].sharding
            self.device[value] = held(self.device[value], sharding)
        passed = [self.device[v] for v in on_device]
        passed = [array for array in passed if not compat.is_key_type(array.aval)]
        self.since = min(passed, key=lambda array: array.size, default=None)
        self.host.update(zip(on_host, handles[len(on_device) :], strict=True))


def _is_value(atom: Any) -> bool:
    return isinstance(atom, int)
