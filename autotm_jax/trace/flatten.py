"""Flattening: the jaxpr of a step with its calls written out.

Each higher-order primitive that only groups equations (`jit`, `closed_call`,
`custom_jvp_call`, `custom_vjp_call`) has a rule that names the jaxpr to write out; of
one with variants, that of the default. A `scan` or a `while` is written out as a loop
of the flat program, if that is asked for. A primitive without a rule (conditionals,
sharded regions, custom kernels, whatever comes next) stays one equation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax.extend.core as jex_core
from jax.sharding import NamedSharding, Sharding

from .. import compat
from .bytes import nbytes_of
from .loops import (
    ASSUMED_LENGTH,
    COUNTER,
    Carry,
    Condition,
    Loop,
    Stack,
    path_of,
    slicing,
    why_whole,
)
from .primitives import RESHARDING
from .variants import VARIANTS


Rule = Callable[[jex_core.JaxprEqn], Any | None]

_rules: dict[str, Rule] = {}


def register_flattening(name: str) -> Callable[[Rule], Rule]:
    """Registers the flattening rule of a higher-order primitive.

    The rule takes an equation and returns the closed jaxpr that stands for it, with
    the inputs and outputs of the equation in order, or `None` to keep it whole.

    **Arguments:**

    - `name`: the name of the primitive.

    **Returns:**

    A decorator.
    """

    def register(rule: Rule) -> Rule:
        _rules[name] = rule
        return rule

    return register


@register_flattening("pjit")
@register_flattening("jit")
def _flatten_jit(eqn: jex_core.JaxprEqn) -> Any | None:
    # A call that names shardings, layouts or compiler options is a request to XLA
    # about that call; it is kept whole.
    def said(key: str) -> bool:
        return any(
            type(s).__name__ not in ("UnspecifiedValue", "NoneType")
            for s in eqn.params.get(key, ())
        )

    keys = ("in_shardings", "out_shardings", "in_layouts", "out_layouts")
    if any(map(said, keys)) or eqn.params.get("compiler_options_kvs"):
        return None
    return eqn.params["jaxpr"]


@register_flattening("closed_call")
@register_flattening("core_call")
@register_flattening("custom_jvp_call")
@register_flattening("custom_vjp_call")
def _flatten_call(eqn: jex_core.JaxprEqn) -> Any | None:
    # The pass runs after differentiation, so custom rules have had their say.
    return eqn.params.get("call_jaxpr")


@register_flattening("checkpoint")
@register_flattening("remat2")
def _flatten_checkpoint(eqn: jex_core.JaxprEqn) -> Any | None:
    # What its backward pass computes again, it computes again here: from what went
    # through a cut, so that XLA does not find it to be the same.
    return compat.closed(eqn.params["jaxpr"])


@register_flattening(VARIANTS)
def _flatten_variants(eqn: jex_core.JaxprEqn) -> Any | None:
    return eqn.params["branches"][0]


@dataclasses.dataclass(frozen=True)
class FlatEquation:
    """An equation with its inputs and outputs named by value number.

    - `inputs`: each an `int` (a value) or a `jax.extend.core.Literal`.
    - `outputs`: values.
    - `loop`: the loop whose body it stands in, if any.
    """

    eqn: jex_core.JaxprEqn
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]
    loop: int | None = None

    @property
    def operands(self) -> tuple[int, ...]:
        """The inputs that are values."""
        return tuple(i for i in self.inputs if isinstance(i, int))


@dataclasses.dataclass(frozen=True)
class Flat:
    """A flattened step: values are numbered, arguments first, then constants.

    The equations of a loop stand together, those of loops inside it among them. For
    a step on a mesh, `shardings` says how its large values are divided.
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


def flatten(
    closed: Any,
    whole: Collection[str] = (),
    loops: bool = False,
    closed_loops: Collection[int] = (),
) -> Flat:
    """Writes out the calls of a closed jaxpr and drops equations nobody reads.

    **Arguments:**

    - `closed`: a closed jaxpr, as `jax.jit(f).trace(*args).jaxpr`.
    - `whole`: names of primitives that stay one equation, whatever their rule.
    - `loops`: also write out loops.
    - `closed_loops`: but not these, by the `id` of their equations.

    **Returns:**

    A `Flat`. Equations with effects are kept, in their order.
    """
    flat = live(_Flattening(whole, loops, closed_loops).run(closed))
    busy = {each for e in flat.equations for each in path_of(flat.loops, e.loop)}
    if len(busy) < len(flat.loops):  # a loop that computes nothing has no place here
        return flatten(closed, whole)
    return flat


def _is_for_one_device(eqn: jex_core.JaxprEqn) -> bool:
    # There is nothing to send then. JAX writes it wherever a mesh is known, also one of
    # a single device.
    said = [v for v in eqn.params.values() if isinstance(v, Sharding)]
    has_layout = eqn.params.get("layout") is not None
    return (
        bool(said) and not has_layout and all(compat.device_count(s) == 1 for s in said)
    )


class _Flattening:
    """The values, equations and loops that are written out so far."""

    def __init__(self, whole: Collection[str], opens: bool, closed: Collection[int]):
        self.whole, self.opens, self.closed = whole, opens, closed
        self.avals: list[Any] = []
        self.constants: list[tuple[int, Any]] = []
        self.equations: list[FlatEquation] = []
        self.loops: list[Loop | None] = []
        self.known: dict[int, int] = {}

    def run(self, closed: Any) -> Flat:
        arguments = [self.new(v.aval) for v in closed.jaxpr.invars]
        results = self.write_out(closed, list(arguments), None)
        return Flat(
            tuple(self.avals),
            tuple(arguments),
            tuple(self.constants),
            tuple(self.equations),
            tuple(results),
            tuple(loop for loop in self.loops if loop is not None),
        )

    def new(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def write_out(
        self, inner: Any, inputs: Sequence[Any], loop: int | None
    ) -> list[Any]:
        env: dict[Any, Any] = {}

        def read(atom: Any) -> Any:
            return atom if isinstance(atom, jex_core.Literal) else env[atom]

        constvars, consts = compat.constants_of(inner)
        for var, const in zip(constvars, consts, strict=True):
            number = self.known.get(id(const))
            if number is None:
                number = self.known[id(const)] = self.new(var.aval)
                self.constants.append((number, const))
            env[var] = number
        env.update(zip(inner.jaxpr.invars, inputs, strict=True))
        for eqn in inner.jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            env.update(
                zip(eqn.outvars, self.equation(eqn, operands, loop), strict=True)
            )
        return [read(v) for v in inner.jaxpr.outvars]

    def equation(
        self, eqn: jex_core.JaxprEqn, operands: list[Any], loop: int | None
    ) -> Sequence[Any]:
        name = eqn.primitive.name
        write_loop = _LOOPS.get(name)
        is_open = self.opens and id(eqn) not in self.closed
        if write_loop is not None and is_open and not why_whole(eqn):
            return write_loop(self, eqn, operands, loop)
        rule = None if name in self.whole else _rules.get(name)
        # A context (compute type, XLA metadata) belongs to the whole call.
        body = None if rule is None or compat.has_context(eqn) else rule(eqn)
        if body is not None and len(body.jaxpr.invars) == len(operands):
            return self.write_out(body, operands, loop)
        if name in RESHARDING and _is_for_one_device(eqn):
            return operands
        outputs = tuple(self.new(v.aval) for v in eqn.outvars)
        self.equations.append(FlatEquation(eqn, tuple(operands), outputs, loop))
        return outputs

    def scan(
        self, eqn: jex_core.JaxprEqn, operands: list[Any], parent: int | None
    ) -> Sequence[Any]:
        body, params = eqn.params["jaxpr"], eqn.params
        shared, carried = compat.scan_operands(eqn)
        index = len(self.loops)
        self.loops.append(None)  # those inside it follow
        counter = self.new(COUNTER)
        before = [self.new(v.aval) for v in body.jaxpr.invars[shared:][:carried]]
        stacked = operands[shared + carried :]
        each = [self.slice(whole, counter, index, eqn) for whole in stacked]
        made = self.write_out(body, [*operands[:shared], *before, *each], index)
        results = [self.new(v.aval) for v in eqn.outvars]
        carries = zip(operands[shared:], before, made, results, strict=False)
        stacks = zip(made[carried:], results[carried:], strict=True)
        self.loops[index] = Loop(
            index,
            parent,
            params["length"],
            params["reverse"],
            params["unroll"],
            counter,
            tuple(Carry(*c) for c in carries),
            tuple(Stack(*s) for s in zip(each, stacked, strict=True)),
            tuple(Stack(*s) for s in stacks),
            compat.source_line(eqn),
            eqn=eqn,
        )
        return results

    def while_loop(
        self, eqn: jex_core.JaxprEqn, operands: list[Any], parent: int | None
    ) -> Sequence[Any]:
        params = eqn.params
        tested, shared = params["cond_nconsts"], params["body_nconsts"]
        constants, initial = operands[:tested], operands[tested + shared :]
        index = len(self.loops)
        self.loops.append(None)  # those inside it follow
        counter = self.new(COUNTER)
        results = [self.new(v.aval) for v in eqn.outvars]
        before = [self.new(v.aval) for v in eqn.outvars]
        inputs = [*operands[tested : tested + shared], *before]
        after = self.write_out(params["body_jaxpr"], inputs, index)
        carries = zip(initial, before, after, results, strict=True)
        self.loops[index] = Loop(
            index,
            parent,
            ASSUMED_LENGTH,
            False,
            1,
            counter,
            tuple(Carry(*c) for c in carries),
            (),
            (),
            compat.source_line(eqn),
            condition=Condition(params["cond_jaxpr"], tuple(constants)),
            eqn=eqn,
        )
        return results

    def slice(
        self, whole: Any, counter: int, loop: int, scan: jex_core.JaxprEqn
    ) -> Any:
        aval = self.avals[whole] if isinstance(whole, int) else whole.aval
        first = len(self.equations)
        (each,) = self.write_out(slicing(aval), [whole, counter], loop)
        # It is the user's loop that takes slices.
        self.equations[first:] = [
            dataclasses.replace(e, eqn=e.eqn.replace(source_info=scan.source_info))
            for e in self.equations[first:]
        ]
        return each


_LOOPS = {"scan": _Flattening.scan, "while": _Flattening.while_loop}


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
        if equation.eqn.effects or wanted.intersection(equation.outputs):
            wanted.update(equation.operands)
            kept.append(equation)
    return tuple(kept[::-1])
