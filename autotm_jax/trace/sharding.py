"""How a step is divided among the devices of a mesh.

Of a value in the middle of a step, JAX knows its whole shape; which part of it is on
each device, XLA decides when it compiles. So it is asked: a step that returns all of
its values is compiled, and says how each result is sharded. Planned, values are held to
that wherever they go from one segment to another, so that the parts of a step are
partitioned as the whole was.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core
from jax.sharding import NamedSharding, PartitionSpec

from .. import compat
from .bytes import nbytes_of
from .flat import Flat, FlatEquation
from .loops import Loop, path_of, repeats
from .regions import in_runs, run_in_region


Shardings = Mapping[int, NamedSharding]
"""By value, how it is sharded."""

Divide = Callable[[Flat], Shardings]
"""Asks XLA how the values of a step are sharded."""


# A value smaller than the largest one by this factor is left to XLA.
_NOTHING = 65536


# What is larger than all it is made of by this factor is filled.
_FILLED = 64


def divided(flat: Flat, divide: Divide | None) -> Flat:
    """A step with the shardings of its values, if it runs on a mesh."""
    if divide is None:
        return flat
    found = {**divide(flat), **flat.shardings}
    mesh = next((s.mesh for s in found.values()), None)
    for value, aval in enumerate(flat.avals):
        # What is part of a type is known of small values, too.
        if mesh is not None and compat.is_explicitly_sharded(aval):
            found.setdefault(value, NamedSharding(mesh, aval.sharding.spec))
    return dataclasses.replace(flat, shardings=found)


def stacked(sharding: NamedSharding) -> NamedSharding:
    """That of arrays along a new first axis."""
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


def held(array: Any, sharding: NamedSharding | None) -> Any:
    """An array of a traced step, sharded like this."""
    if sharding is None:
        return array
    if compat.is_explicitly_sharded(array.aval):
        return jax.sharding.reshard(array, _explicit(sharding))
    return jax.lax.with_sharding_constraint(array, sharding)


def _explicit(sharding: NamedSharding) -> NamedSharding:
    # That part of it which is part of types.
    kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))

    spec = compat.explicit_part(sharding.spec, kinds)
    return NamedSharding(sharding.mesh, spec)


def large_values(flat: Flat) -> list[int]:
    """The values of a step whose sharding matters, arguments first."""
    home, size = _home(flat), [0 if _is_key(a) else nbytes_of(a) for a in flat.avals]
    size = [n * repeats(flat.loops, home.get(v)) for v, n in enumerate(size)]
    least = max(size, default=0) / _NOTHING
    inside = {v for loop in flat.loops for v in loop.entered}
    made = [v for e in flat.equations for v in e.outputs]
    made += [v for loop in flat.loops for v in loop.left_with]
    # Of a manual region, it is known already.
    asked = {*made, *inside, *flat.arguments}.difference(flat.shardings)
    return [v for v in sorted(asked) if size[v] > max(1, least)]


def _is_key(aval: Any) -> bool:
    return hasattr(aval, "dtype") and compat.is_key_type(aval)


def with_all_values(
    flat: Flat, values: Iterable[int]
) -> Callable[..., tuple[list[Any], list[Any]]]:
    """A flat function to the results of a step, and to values from the middle of it.

    Those made in a loop are stacked, one axis for each loop around.

    **Arguments:**

    - `flat`: the step, its loops written out.
    - `values`: which ones.
    """
    wanted = list(values)

    def run(*arguments: Any) -> tuple[list[Any], list[Any]]:
        walk = _Walk(flat, frozenset(wanted), arguments)
        return [walk.read(r) for r in flat.results], [walk.seen[v] for v in wanted]

    return run


def shardings_of(
    flat: Flat, values: Sequence[int], found: Sequence[Any]
) -> dict[int, NamedSharding]:
    """What the shardings of the second result of `with_all_values` say."""
    home = _home(flat)
    out: dict[int, NamedSharding] = {}
    for value, sharding in zip(values, found, strict=True):
        if isinstance(sharding, NamedSharding):
            # The axes of the loops around come first.
            around = len(path_of(flat.loops, home.get(value)))
            kept = tuple(sharding.spec)[around:]
            out[value] = NamedSharding(sharding.mesh, PartitionSpec(*kept))
    return _with_filled(flat, out)


def _with_filled(
    flat: Flat, shardings: Mapping[int, NamedSharding]
) -> dict[int, NamedSharding]:
    # What is made of next to nothing (zeros, say) is whole on each device where it is
    # returned. Where it is read, each makes its part.
    out, size = dict(shardings), [nbytes_of(a) for a in flat.avals]
    filled = {
        v
        for e in flat.equations
        for v in e.outputs
        if sum(size[o] for o in e.operands) * _FILLED < size[v]
    }
    for equation in reversed(flat.equations):
        for output in equation.outputs:
            for v in filled.intersection(equation.operands) & out.keys():
                if output in out and flat.avals[v].shape == flat.avals[output].shape:
                    out[v] = out[output]
    return out


def _home(flat: Flat) -> dict[int, int | None]:
    """By value, the loop in whose body it is."""
    home: dict[int, int | None] = {}
    for loop in flat.loops:
        home |= dict.fromkeys(loop.entered, loop.index)
        home |= dict.fromkeys(loop.left_with, loop.parent)
    for equation in flat.equations:
        home |= dict.fromkeys(equation.outputs, equation.loop)
    return home


class _Walk:
    """Runs a flat step, and keeps what is asked for of each scope that it leaves."""

    def __init__(
        self,
        flat: Flat,
        wanted: frozenset[int],
        arguments: Sequence[Any],
    ):
        self.flat, self.wanted = flat, wanted
        self.env: dict[int, Any] = dict(flat.constants)
        self.env.update(zip(flat.arguments, arguments, strict=True))
        self.seen: dict[int, Any] = {}
        self.runs: dict[int | None, list[list[FlatEquation]]] = {}
        for loop, equations in itertools.groupby(flat.equations, lambda e: e.loop):
            self.runs.setdefault(loop, []).extend(in_runs(equations))
        self.maker = {v: loop for loop in flat.loops for v in loop.left_with}
        self._scope(None)
        self.seen |= {v: self.env[v] for v in wanted & self.env.keys()}

    def read(self, atom: Any) -> Any:
        if not isinstance(atom, int):
            return atom.val
        if atom not in self.env:
            self._loop(self.maker[atom])
        return self.env[atom]

    def _scope(self, scope: int | None) -> None:
        for run in self.runs.get(scope, ()):
            if run[0].manual is not None:
                self._in_region(run)
                continue
            (equation,) = run
            outputs = compat.bind(equation.eqn, *map(self.read, equation.inputs))
            self.env.update(zip(equation.outputs, outputs, strict=True))
        for loop in self.flat.loops:
            if loop.parent == scope and not self.env.keys() >= set(loop.left_with):
                self._loop(loop)

    def _in_region(self, run: list[FlatEquation]) -> None:
        made = {v for e in run for v in e.outputs}
        for value in {v for e in run for v in e.operands} - made:
            self.read(value)
        self.env.update(run_in_region(run, self.env, made))

    def _typed(self, atom: Any, like: int) -> Any:
        aval = self.flat.avals[like]
        if isinstance(atom, int):
            return self.read(atom)
        scalar = np.asarray(atom.val).item() if aval.weak_type else atom.val
        return jnp.asarray(scalar, None if aval.weak_type else aval.dtype)

    def _loop(self, loop: Loop) -> None:
        start = [self._typed(c.initial, c.before) for c in loop.carries]
        for value in self._taken(loop):
            self.read(value)
        outside, seen = self.env, self.seen

        def body(carried: Any, counter: Any) -> tuple[Any, Any]:
            self.env, self.seen = dict(outside), {}
            self.env[loop.counter] = counter
            self.env.update(zip(loop.entered, carried, strict=True))
            self._scope(loop.index)
            own = self.wanted & (self.env.keys() - outside.keys())
            found = {v: self.env[v] for v in own} | self.seen
            after = [self._typed(c.after, c.before) for c in loop.carries]
            return after, ([self.read(s.each) for s in loop.stacks], found)

        if loop.condition is None:
            counters = jnp.arange(loop.length, dtype=jnp.int32)
            carried, (whole, found) = jax.lax.scan(
                body, start, counters, reverse=loop.reverse
            )
        else:
            carried, whole, found = self._while(loop, body, start)
        self.env, self.seen = outside, seen | found
        self.env.update(zip((c.result for c in loop.carries), carried, strict=True))
        self.env.update(zip((s.whole for s in loop.stacks), whole, strict=True))

    def _while(
        self, loop: Loop, body: Callable[..., Any], start: list[Any]
    ) -> tuple[Any, list[Any], Any]:
        # Of what is made in each iteration, the last is kept, as if stacked.
        assert loop.condition is not None
        goes_on = jex_core.jaxpr_as_fun(loop.condition.closed)
        constants = [self.read(c) for c in loop.constants]
        zero = jnp.int32(0)
        _, (_, shapes) = jax.eval_shape(body, start, zero)
        nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

        def once(state: Any) -> Any:
            carried, _ = state
            after, (_, found) = body(carried, zero)
            return after, found

        carried, found = jax.lax.while_loop(
            lambda state: goes_on(*constants, *state[0])[0], once, (start, nothing)
        )
        return carried, [], jax.tree.map(lambda a: a[None], found)

    def _taken(self, loop: Loop) -> list[int]:
        # What the loops that fill or hand on leave to it is made before it starts.
        inside = {loop.index}
        for other in self.flat.loops:
            if other.parent in inside:
                inside.add(other.index)
        read = [v for e in self.flat.equations if e.loop in inside for v in e.operands]
        for index in inside:
            each = self.flat.loops[index]
            atoms = [c.initial for c in each.carries] + list(each.constants)
            read += [a for a in atoms if isinstance(a, int)]
        made = {v for index in inside for v in self.flat.loops[index].left_with}
        made -= set(loop.left_with)
        return [
            v for v in read if v in self.maker and v not in made and v not in self.env
        ]
