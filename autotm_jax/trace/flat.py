"""A flattened step: its values by number, its equations and loops in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.extend.core as jex_core
from jax.sharding import NamedSharding

from .. import compat
from .bytes import nbytes_of
from .loops import Loop, path_of
from .regions import Manual


@dataclasses.dataclass(frozen=True)
class FlatEquation:
    """An equation with its inputs and outputs named by value number.

    - `inputs`: each an `int` (a value) or a `jax.extend.core.Literal`.
    - `outputs`: values.
    - `loop`: the loop whose body it stands in, if any.
    - `manual`: the region of a `shard_map` that it runs in, if any. Then `eqn` is what
        each device does.
    """

    eqn: jex_core.JaxprEqn
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]
    loop: int | None = None
    manual: Manual | None = None

    @property
    def operands(self) -> tuple[int, ...]:
        """The inputs that are values."""
        return tuple(i for i in self.inputs if isinstance(i, int))


@dataclasses.dataclass(frozen=True)
class Flat:
    """A flattened step: values are numbered, arguments first, then constants.

    The equations of a loop stand together, those of loops inside it among them. For
    a step on a mesh, `shardings` says how its large values are divided: at first those
    in manual regions, whose parts the region gives.
    """

    avals: tuple[Any, ...]
    arguments: tuple[int, ...]
    constants: tuple[tuple[int, Any], ...]
    equations: tuple[FlatEquation, ...]
    results: tuple[Any, ...]
    loops: tuple[Loop, ...] = ()
    shardings: Mapping[int, NamedSharding] = dataclasses.field(default_factory=dict)

    def nbytes(self, value: int) -> int:
        """Bytes of a value on each device."""
        return nbytes_of(self.avals[value], self.shardings.get(value))

    def substituted(self, by: Mapping[int, Any]) -> Flat:
        """The step with values replaced where they are read."""

        def now(atom: Any) -> Any:
            return by.get(atom, atom) if isinstance(atom, int) else atom

        equations = (
            dataclasses.replace(e, inputs=tuple(map(now, e.inputs)))
            for e in self.equations
        )
        return dataclasses.replace(
            self,
            equations=tuple(equations),
            results=tuple(map(now, self.results)),
            loops=tuple(loop.substituted(by) for loop in self.loops),
        )


def live(flat: Flat) -> Flat:
    """Without the equations and loops that no result and no effect depends on."""
    wanted = {r for r in flat.results if isinstance(r, int)}
    count = -1
    while count != len(wanted):  # what an iteration hands on, another one reads
        count = len(wanted)
        for loop in reversed(flat.loops):
            if loop.condition is not None and wanted.intersection(loop.left_with):
                # Its condition may read whatever it carries.
                wanted.update(loop.left_with, _values(*loop.constants))
            for carry in loop.carries:
                if wanted.intersection((carry.result, carry.before)):
                    wanted.update(_values(carry.initial, carry.after))
            stacks = [s for s in loop.stacks if s.whole in wanted]
            wanted.update(*(_values(s.each, s.begun) for s in stacks))
            wanted.update(*(_values(s.whole) for s in loop.slices if s.each in wanted))
        live_equations(flat.equations, wanted)
    kept = tuple(_trimmed(loop, wanted) for loop in flat.loops)
    equations = live_equations(flat.equations, wanted)
    return _renumbered(dataclasses.replace(flat, equations=equations, loops=kept))


def _values(*atoms: Any) -> tuple[int, ...]:
    return tuple(a for a in atoms if isinstance(a, int))


def _trimmed(loop: Loop, wanted: set[int]) -> Loop:
    return dataclasses.replace(
        loop,
        carries=tuple(
            c for c in loop.carries if wanted.intersection((c.result, c.before))
        ),
        slices=tuple(s for s in loop.slices if s.each in wanted),
        stacks=tuple(s for s in loop.stacks if s.whole in wanted),
    )


def _renumbered(flat: Flat) -> Flat:
    # Loops that nothing is left of are gone; those that have no equation but hand
    # something on stay.
    used: set[int] = set()
    for loop in flat.loops:
        if loop.carries or loop.stacks:
            used.update(path_of(flat.loops, loop.index))
    for equation in flat.equations:
        used.update(path_of(flat.loops, equation.loop))
    if len(used) == len(flat.loops):
        return flat
    number: dict[int | None, int | None] = {None: None}
    number.update({old: new for new, old in enumerate(sorted(used))})
    loops = tuple(
        dataclasses.replace(
            flat.loops[old], index=new, parent=number[flat.loops[old].parent]
        )
        for new, old in enumerate(sorted(used))
    )
    equations = tuple(
        dataclasses.replace(e, loop=number[e.loop]) for e in flat.equations
    )
    return dataclasses.replace(flat, loops=loops, equations=equations)


def live_equations(
    equations: Sequence[FlatEquation], wanted: set[int]
) -> tuple[FlatEquation, ...]:
    """The equations that a wanted value or an effect depends on, in their order.

    **Arguments:**

    - `equations`: in program order.
    - `wanted`: values; those that the equations read are added.

    **Returns:**

    The equations.
    """
    kept: list[FlatEquation] = []
    for equation in reversed(equations):
        if compat.has_effects(equation.eqn) or wanted.intersection(equation.outputs):
            wanted.update(equation.operands)
            kept.append(equation)
    return tuple(kept[::-1])
