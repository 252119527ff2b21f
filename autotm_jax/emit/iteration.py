"""One iteration of an emitted loop, and what goes into the loop and comes out of it.

Device stacks are carried, and each slice is written when it is made: as results of a
`scan` they would be filled at the start of the step, and live from there. Host stacks
are results of the `scan`: XLA writes those slices beside the loop's own work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp

from ..trace import Loop, Program, can_be_filled, held, slice_of, stacked


Body = Callable[[Any, Any], tuple[Any, Any]]


class Stacks:
    """The stacks that a loop makes.

    - `written`: per stack that is carried, the value of an iteration that goes there.
    - `returned`: the same, of those that are results of the `scan`.

    **Arguments:**

    - `program`, `loop`: what runs.
    - `kept`, `moved`: values that cross to another loop, on the device and on the host.
    """

    def __init__(
        self, program: Program, loop: Loop, kept: Sequence[int], moved: Sequence[int]
    ):
        self.loop, self.kept, self.moved = loop, kept, moved
        self.avals = [program.values[s.whole].aval for s in loop.stacks]
        inside = [program.values[v].aval for v in kept]
        self.avals += [a.update(shape=(loop.length, *a.shape)) for a in inside]
        self.shardings = [program.values[s.whole].sharding for s in loop.stacks]
        each = [program.values[v].sharding for v in kept]
        self.shardings += [s if s is None else stacked(s) for s in each]
        self.each = [*(s.each for s in loop.stacks), *kept]
        self.begun = [*(s.begun for s in loop.stacks), *[None] * len(kept)]
        # What goes to another loop is stacked from the first iteration on.
        self.offsets = [0] * len(loop.stacks) + [loop.start] * len(kept)
        every = range(len(self.each))
        self.written = [i for i in every if can_be_filled(self.avals[i])]
        self.returned = [i for i in every if i not in self.written]

    def buffers(
        self, anchor: Callable[[Any], jax.Array], read: Callable[[Any], Any]
    ) -> list[jax.Array]:
        """Stacks to be written: begun, or filled no earlier than the anchor allows."""

        def buffer(i: int) -> jax.Array:
            if self.begun[i] is not None:
                return read(self.begun[i])
            return held(filled(self.avals[i], anchor), self.shardings[i])

        return [buffer(i) for i in self.written]


class Iteration:
    """What one iteration has stacked, and fetched for the next one.

    **Arguments:**

    - `stacks`: of the loop.
    - `buffers`: of `stacks.written`, as the iteration before left them.
    - `left`: values of the iteration before that this one is to store.
    """

    def __init__(
        self,
        stacks: Stacks,
        buffers: Sequence[jax.Array],
        left: Mapping[int, jax.Array] = MappingProxyType({}),
    ):
        self.stacks, self.left = stacks, left
        self.buffers = dict(zip(stacks.written, buffers, strict=True))
        self.on_host: dict[int, jax.Array] = {}
        self.fetched: dict[int, jax.Array] = {}
        self._left = set(stacks.written)

    def write(
        self,
        made: Collection[int],
        read: Callable[[Any], Any],
        counter: Any,
        returning: Collection[int] = (),
    ) -> None:
        """Writes those of the values made that go into a stack.

        A result of the loop that is `returning` is written then: were it written at
        once, nobody would want it back, and XLA would not move it at all.
        """
        results = len(self.stacks.loop.stacks)
        for i in sorted(self._left):
            each = self.stacks.each[i]
            waits = i < results and each in returning
            if isinstance(each, int) and each in made and not waits:
                self._write(i, read(each), counter)

    def finish(self, read: Callable[[Any], Any], counter: Any) -> list[jax.Array]:
        """Writes what is left, and returns the buffers."""
        for i in sorted(self._left):
            self._write(i, read(self.stacks.each[i]), counter)
        return [self.buffers[i] for i in self.stacks.written]

    def results(self, read: Callable[[Any], Any]) -> list[Any]:
        """What the `scan` is to stack itself."""
        each = [read(self.stacks.each[i]) for i in self.stacks.returned]
        return each + [self.on_host[v] for v in self.stacks.moved]

    def _write(self, stack: int, each: Any, counter: Any) -> None:
        self._left.discard(stack)
        buffer = self.buffers[stack]
        piece = jnp.asarray(each, buffer.dtype)[None]
        first = counter - self.stacks.offsets[stack]
        at = [first, *[jnp.int32(0)] * (buffer.ndim - 1)]
        self.buffers[stack] = jax.lax.dynamic_update_slice(
            buffer, piece, at, allow_negative_indices=False
        )


def looped(
    loop: Loop, body: Body, state: Any, constants: Sequence[Any], unroll: int
) -> tuple[Any, Any]:
    """Runs a loop.

    **Arguments:**

    - `loop`: a `scan` or a `while`.
    - `body`: of one iteration: the state and the counter to the next state and what is
        to be stacked, which in a `while` is nothing.
    - `state`: before the first iteration. What is carried comes first.
    - `constants`: what the condition of a `while` reads from outside.
    - `unroll`: as of `jax.lax.scan`.

    **Returns:**

    The state after the last iteration, and the stacks.
    """
    if loop.condition is None:
        counters = jnp.arange(loop.start, loop.start + loop.length, dtype=jnp.int32)
        options = {"reverse": loop.reverse, "unroll": unroll}
        return jax.lax.scan(body, state, counters, **options)
    goes_on = jex_core.jaxpr_as_fun(loop.condition.closed)

    def runs_again(state: Any) -> Any:
        (carried, *_), _ = state
        return goes_on(*constants, *carried)[0]

    def once(state: Any) -> Any:
        state, counter = state
        return body(state, counter)[0], counter + 1

    state, _ = jax.lax.while_loop(runs_again, once, (state, jnp.int32(0)))
    return state, []


def filled(aval: Any, anchor: Callable[[Any], jax.Array]) -> jax.Array:
    """An array of zeros, made no earlier than the anchor allows."""
    return jnp.full(aval.shape, anchor(jnp.zeros((), aval.dtype)), aval.dtype)


def first_of(loop: Loop) -> Any:
    """The number of the iteration that a loop runs first."""
    return jnp.int32(loop.start + (loop.length - 1 if loop.reverse else 0))


def next_of(loop: Loop, counter: Any) -> Any:
    """The number of the iteration after one; of the last one, itself."""
    if loop.reverse:
        return jnp.maximum(counter - 1, loop.start)
    return jnp.minimum(counter + 1, loop.start + loop.length - 1)


def kept(stack: jax.Array, loop: Loop, counter: Any) -> jax.Array:
    """The slice of a stack that a loop is handed by the one it is paired with."""
    return slice_of(stack, counter - loop.start if loop.start else counter)


def fetched(stack: jax.Array, loop: Loop, counter: Any) -> jax.Array:
    """The same of a host stack, on the device."""
    return jax.device_put(kept(stack, loop, counter), jax.memory.Space.Device)
