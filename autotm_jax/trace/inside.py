"""Writing out the inside of a manual region: its values, numbered as whole arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax.extend.core as jex_core
from jax.sharding import NamedSharding, PartitionSpec

from .. import compat
from .flat import FlatEquation
from .regions import Manual, Region, arranged, stackable


class Written(Protocol):
    """What is written out so far of a step."""

    avals: list[Any]
    equations: list[FlatEquation]
    shardings: dict[int, NamedSharding]

    def new(self, aval: Any) -> int: ...


class Inside:
    """A region that is being written out, and how parts make up each of its values.

    **Arguments:**

    - `region`: the region.
    - `written`: where its values and equations are added.
    - `eqn`, `operands`: the `shard_map`, and what it reads.
    """

    def __init__(
        self,
        region: Region,
        written: Written,
        eqn: jex_core.JaxprEqn,
        operands: Sequence[Any],
    ):
        self._region, self._written = region, written
        params = eqn.params
        own = (e for e in params["jaxpr"].eqns if not compat.has_context(e))
        self._context = next(own, eqn)
        given = zip(operands, params["in_specs"], strict=True)
        self._specs = {v: spec for v, spec in given if isinstance(v, int)}
        self._results: list[tuple[Any, PartitionSpec]] = []
        # Of results that are not made yet: as they are returned, where that may be.
        self._wanted: dict[Any, PartitionSpec] = {}
        for var, spec in zip(params["jaxpr"].outvars, params["out_specs"], strict=True):
            self._results.append((var.aval, spec))
            if not isinstance(var, jex_core.Literal) and region.suits(spec, var.aval):
                self._wanted.setdefault(var, spec)

    def takes_whole(self, value: int) -> bool:
        """Takes a constant, of which every device has all.

        **Returns:**

        Whether it can: not if the region takes that array divided, too.
        """
        return self._specs.setdefault(value, PartitionSpec()) == PartitionSpec()

    def calls(self, eqn: jex_core.JaxprEqn, body: Any) -> None:
        """The results of a call are those of its body, which others may call, too."""
        for var, inner in zip(eqn.outvars, body.jaxpr.outvars, strict=True):
            if isinstance(inner, jex_core.Literal):
                continue
            self._wanted.pop(inner, None)
            if var in self._wanted:
                self._wanted[inner] = self._wanted[var]

    def equation(
        self, eqn: jex_core.JaxprEqn, operands: Sequence[Any], loop: int | None
    ) -> tuple[int, ...]:
        """Adds an equation of the region, and returns the values that it makes."""
        avals = [v.aval for v in eqn.outvars]
        specs = [
            self._wanted.get(v, self._region.default(aval))
            for v, aval in zip(eqn.outvars, avals, strict=True)
        ]
        outputs = tuple(map(self._part, avals, specs))
        self._run(eqn, operands, outputs, loop)
        return outputs

    def returned(self, made: Sequence[Any], loop: int | None) -> list[Any]:
        """What the region returns, made up as it says."""
        return [
            self._rearranged(atom, aval, spec, loop)
            for atom, (aval, spec) in zip(made, self._results, strict=True)
        ]

    def carried(
        self, initial: Sequence[Any], avals: Sequence[Any], loop: int | None
    ) -> tuple[list[int], list[int]]:
        """What a loop starts with, and its first values inside: both made up alike.

        **Arguments:**

        - `initial`, `avals`: what the scan carries, and the parts' abstract values.
        - `loop`: around the scan.
        """
        out: list[int] = []
        for atom, aval in zip(initial, avals, strict=True):
            spec = self._specs[atom] if isinstance(atom, int) else None
            if spec is None or not self._region.suits(spec, aval):
                spec = self._region.default(aval)
            value = self._rearranged(atom, aval, spec, loop)
            if not isinstance(value, int):  # a literal has no type of its own
                value = self._part(aval, spec)
                self._run(arranged(aval, (), self._context), [atom], (value,), loop)
            out.append(value)
        specs = [self._specs[value] for value in out]
        return out, list(map(self._part, avals, specs))

    def sliced(
        self, wholes: Sequence[Any], avals: Sequence[Any], loop: int | None
    ) -> list[Any]:
        """What a loop slices, made up so that whole arrays have the same slices."""
        out: list[Any] = []
        for atom, aval in zip(wholes, avals, strict=True):
            if not stackable(self._specs[atom], aval):
                default = tuple(self._region.default(aval))
                inner = default[-1:] if aval.ndim == 1 else default[1:]
                atom = self._rearranged(atom, aval, PartitionSpec(None, *inner), loop)
            out.append(atom)
        return out

    def slices(self, whole: int, each: int) -> None:
        """Says that one value is the slices of another."""
        self._placed(each, PartitionSpec(*tuple(self._specs[whole])[1:]))

    def handed_on(
        self, made: Sequence[Any], before: Sequence[int], avals: Any, loop: int
    ) -> list[Any]:
        """What an iteration hands to the next, made up as what it had."""
        return [
            self._rearranged(atom, aval, self._specs[value], loop)
            for atom, value, aval in zip(made, before, avals, strict=True)
        ]

    def left(
        self, carried: Sequence[int], each: Sequence[Any], eqn: jex_core.JaxprEqn
    ) -> list[int]:
        """The values that a loop leaves: the last ones carried, and the stacks."""
        out: list[int] = []
        for value in carried:
            out.append(self._written.new(self._written.avals[value]))
            self._placed(out[-1], self._specs[value])
        for atom, var in zip(each, eqn.outvars[len(carried) :], strict=True):
            is_value = isinstance(atom, int)
            spec = PartitionSpec(None, *(self._specs[atom] if is_value else ()))
            inner = self._written.avals[atom].shape if is_value else ()
            shape = (eqn.params["length"], *inner)
            sharding = NamedSharding(self._region.mesh, spec)
            out.append(
                self._written.new(compat.abstract_array(shape, var.aval, sharding))
            )
            self._placed(out[-1], spec)
        return out

    def _part(self, aval: Any, spec: PartitionSpec) -> int:
        value = self._written.new(self._region.whole(aval, spec))
        self._placed(value, spec)
        return value

    def _placed(self, value: int, spec: PartitionSpec) -> None:
        self._specs[value] = spec
        mesh = self._region.mesh
        if mesh.size > 1:
            self._written.shardings[value] = NamedSharding(mesh, spec)

    def _run(
        self,
        eqn: jex_core.JaxprEqn,
        operands: Sequence[Any],
        outputs: tuple[int, ...],
        loop: int | None,
    ) -> None:
        takes = tuple(self._specs[o] if isinstance(o, int) else None for o in operands)
        gives = tuple(self._specs[o] for o in outputs)
        manual = Manual(self._region, takes, gives)
        self._written.equations.append(
            FlatEquation(eqn, tuple(operands), outputs, loop, manual)
        )

    def _rearranged(
        self, atom: Any, aval: Any, spec: PartitionSpec, loop: int | None
    ) -> Any:
        # The value whose parts are the same and make it up like this.
        known = self._specs[atom] if isinstance(atom, int) else PartitionSpec()
        if known == spec:
            return atom
        # Of each device's row of numbers, slices are a number of each.
        shape = (*aval.shape, *[1] * (len(spec) - aval.ndim)) if aval.ndim else ()
        eqn = arranged(aval, shape, self._context)
        value = self._part(eqn.outvars[0].aval, spec)
        self._run(eqn, [atom], (value,), loop)
        return value
