"""Manual regions: the inside of a `jax.shard_map`, written out with the rest of a step.

Inside, an array is what one device has. So that the rest of the pipeline sees one kind
of value, each value of a region is numbered as the whole array that its parts make up:
along its last dimension, over the axes of the mesh by which the parts may differ, or as
the region says where it takes or returns the value. The equation itself stays that of
one device; where it runs, a `shard_map` of its own is put around it, which takes
the whole arrays apart and together again. XLA partitions those away: nothing is copied.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Protocol, TypeVar

import jax
import jax.extend.core as jex_core
from jax.extend.core import primitives
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .. import compat


@dataclasses.dataclass(frozen=True)
class Region:
    """A `jax.shard_map` over all axes of a mesh.

    - `mesh`: its devices.
    - `check_vma`: whether JAX keeps track of what differs from device to device.
    """

    mesh: Mesh
    check_vma: bool

    def default(self, aval: Any) -> PartitionSpec:
        """How the parts of a value of the region make up a whole array.

        **Arguments:**

        - `aval`: of one device's part.
        """
        names = self._differing(aval)
        if not names:
            return PartitionSpec()
        return PartitionSpec(*[None] * (aval.ndim - 1), names)

    def _differing(self, aval: Any) -> tuple[str, ...]:
        names = self.mesh.axis_names
        if not self.check_vma:  # then it may be all of them
            return names
        varying = compat.varying_axes(aval)
        return tuple(n for n in names if n in varying)

    def suits(self, spec: PartitionSpec, aval: Any) -> bool:
        """Whether parts of a value may make up a whole array like this."""
        named = {n for entry in spec for n in _names(entry)}
        return named == set(self._differing(aval))

    def whole(self, aval: Any, spec: PartitionSpec) -> Any:
        """The abstract value of the array that parts make up.

        **Arguments:**

        - `aval`: of one device's part.
        - `spec`: how they make it up.
        """
        sizes = dict(self.mesh.shape)
        ways = [math.prod(sizes[n] for n in _names(e)) for e in spec]
        shape = aval.shape or (1,) * len(ways)
        ways += [1] * (len(shape) - len(ways))
        shape = tuple(n * k for n, k in zip(shape, ways, strict=True))
        return compat.abstract_array(shape, aval, NamedSharding(self.mesh, spec))

    def traced(
        self,
        fun: Callable[..., Any],
        parts: Sequence[Any],
        takes: Sequence[PartitionSpec | None],
        gives: PartitionSpec,
    ) -> Any:
        """The jaxpr of a function of parts, with types as they are in the region.

        **Arguments:**

        - `fun`: makes one part of parts.
        - `parts`: their abstract values, none of a scalar.
        - `takes`, `gives`: how they and the result make up whole arrays.
        """
        options = {"mesh": self.mesh, "check_vma": self.check_vma}
        specs = {"in_specs": tuple(takes), "out_specs": gives}
        mapped = jax.shard_map(fun, **options, **specs)
        pairs = zip(parts, takes, strict=True)
        wholes = [self.whole(a, spec or PartitionSpec()) for a, spec in pairs]
        (eqn,) = compat.jaxpr_of_function(mapped, *wholes).jaxpr.eqns
        return eqn.params["jaxpr"]


@dataclasses.dataclass(frozen=True)
class Manual:
    """The region that an equation runs in.

    - `region`: it.
    - `takes`, `gives`: per input and output, how parts make up the whole array; `None`
        for a literal.
    """

    region: Region
    takes: tuple[PartitionSpec | None, ...]
    gives: tuple[PartitionSpec, ...]

    def __str__(self) -> str:
        region = self.region
        mesh = dict(region.mesh.shape)
        return f"{mesh}{self.takes}->{self.gives}{region.check_vma}"


def region_of(eqn: jex_core.JaxprEqn, operands: Sequence[Any]) -> Region | None:
    """The region that a `shard_map` can be written out as.

    **Arguments:**

    - `eqn`: a `shard_map`.
    - `operands`: the values that it reads, or literals.

    **Returns:**

    A `Region`, or `None` if the equation has to stay whole: XLA divides some of its
    axes, something in it has a type that whole arrays do not have, or it takes one
    array in two ways.
    """
    params = eqn.params
    mesh, body = compat.concrete_mesh(params["mesh"]), params["jaxpr"]
    if mesh is None or compat.manual_axes(eqn) != set(mesh.axis_names):
        return None
    if compat.has_effects(eqn) or compat.has_context(eqn):
        return None
    if not all(map(_is_plain, _avals(body))):
        return None
    ways: dict[int, PartitionSpec] = {}
    for value, spec in zip(operands, params["in_specs"], strict=True):
        if isinstance(value, int) and ways.setdefault(value, spec) != spec:
            return None
    return Region(mesh, params["check_vma"])


def _avals(jaxpr: Any) -> Iterator[Any]:
    yield from (v.aval for v in jaxpr.invars)
    for eqn in jaxpr.eqns:
        yield from (v.aval for v in eqn.outvars)
        for inner in jex_core.jaxprs_in_params(eqn.params):
            yield from _avals(inner)


def _is_plain(aval: Any) -> bool:
    has_storage = hasattr(aval, "shape") and hasattr(aval, "dtype")
    return (
        has_storage
        and not compat.is_reference(aval)
        and not compat.is_partial_sum(aval)
        and not compat.is_on_host(aval)
    )


def _names(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def stackable(spec: PartitionSpec, aval: Any) -> bool:
    """Whether slices along the first dimension of a whole array are the same of parts.

    **Arguments:**

    - `spec`: how parts make it up.
    - `aval`: of a part.
    """
    return (not spec or spec[0] is None) and (aval.ndim > 1 or not spec)


def arranged(
    part: Any, shape: tuple[int, ...], context: jex_core.JaxprEqn
) -> jex_core.JaxprEqn:
    """The equation of one device that only changes how parts make up a whole.

    **Arguments:**

    - `part`: the abstract value of a part.
    - `shape`: what it is to have. As many elements.
    - `context`: an equation of the region: this one is run as that was traced.
    """

    def change(x: Any) -> Any:
        params = {"new_sizes": shape, "dimensions": None, "sharding": None}
        return primitives.reshape_p.bind(x, **params)

    aval = jax.ShapeDtypeStruct(part.shape, part.dtype)
    (eqn,) = compat.jaxpr_of_function(change, aval).jaxpr.eqns
    return eqn.replace(ctx=context.ctx, source_info=context.source_info)


class Runs(Protocol):
    """An equation with what it reads and makes, as a flat step or a program has it."""

    @property
    def eqn(self) -> Any: ...
    @property
    def inputs(self) -> tuple[Any, ...]: ...
    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def manual(self) -> Manual | None: ...


Each = TypeVar("Each", bound=Runs)


def in_runs(equations: Iterable[Each]) -> Iterator[list[Each]]:
    """Equations that can run in one `shard_map` together, others alone."""
    run: list[Each] = []
    given: dict[int, PartitionSpec] = {}
    for equation in equations:
        if run and not _joins(equation, run[0], given):
            yield run
            run, given = [], {}
        run.append(equation)
        if equation.manual is not None:
            given.update(zip(equation.outputs, equation.manual.gives, strict=True))
    if run:
        yield run


def _joins(equation: Runs, first: Runs, given: Mapping[int, PartitionSpec]) -> bool:
    if equation.manual is None or first.manual is None:
        return False
    # What one shard_map returns, another one may take in another way.
    pairs = zip(equation.inputs, equation.manual.takes, strict=True)
    taken = ((i, spec) for i, spec in pairs if isinstance(i, int))
    is_alike = all(given.get(value, spec) == spec for value, spec in taken)
    return is_alike and equation.manual.region == first.manual.region


def _region(run: Sequence[Runs]) -> Region:
    assert run[0].manual is not None
    return run[0].manual.region


def run_in_region(
    equations: Sequence[Runs], env: Mapping[int, Any], wanted: Collection[int]
) -> dict[int, Any]:
    """Runs equations of one region, in one `shard_map`.

    **Arguments:**

    - `equations`: in order.
    - `env`: the whole arrays by value; it has what they read from elsewhere.
    - `wanted`: values; those that they make are returned.

    **Returns:**

    Whole arrays by value.
    """
    region = _region(equations)
    taken: dict[tuple[int, PartitionSpec], None] = {}
    given: dict[int, PartitionSpec] = {}
    for equation in equations:
        manual = equation.manual
        assert manual is not None
        for atom, spec in zip(equation.inputs, manual.takes, strict=True):
            if isinstance(atom, int) and atom not in given:
                assert spec is not None
                taken[atom, spec] = None
        given.update(zip(equation.outputs, manual.gives, strict=True))
    returned = [v for v in given if v in wanted]

    def run(*parts: Any) -> list[Any]:
        entered = dict(zip(taken, parts, strict=True))
        made: dict[int, Any] = {}
        for equation in equations:
            manual = equation.manual
            assert manual is not None
            operands = [
                _read(atom, spec, var.aval, entered, made)
                for atom, spec, var in zip(
                    equation.inputs, manual.takes, equation.eqn.invars, strict=True
                )
            ]
            outputs = compat.bind(equation.eqn, *operands)
            made.update(zip(equation.outputs, outputs, strict=True))
        return [_whole_rank(made[v], given[v]) for v in returned]

    mapped = jax.shard_map(
        run,
        mesh=region.mesh,
        in_specs=tuple(spec for _, spec in taken),
        out_specs=[given[v] for v in returned],
        check_vma=region.check_vma,
    )
    arrays = mapped(*(env[value] for value, _ in taken))
    return dict(zip(returned, arrays, strict=True))


def _read(
    atom: Any,
    spec: PartitionSpec | None,
    aval: Any,
    entered: Mapping[tuple[int, Any], Any],
    made: Mapping[int, Any],
) -> Any:
    if not isinstance(atom, int):
        return atom.val
    array = made[atom] if atom in made else entered[atom, spec]
    # A scalar that differs from device to device is one of a row outside.
    return array if array.shape == aval.shape else array.reshape(aval.shape)


def _whole_rank(part: jax.Array, spec: PartitionSpec) -> jax.Array:
    return part.reshape((1,) * len(spec)) if part.ndim < len(spec) else part
