"""Flattening: the jaxpr of a step with its calls written out.

Each higher-order primitive that only groups equations (`jit`, `closed_call`,
`custom_jvp_call`, `custom_vjp_call`) has a rule that names the jaxpr to write out; of
one with variants, that of the default. A `scan` or a `while` is written out as a loop
of the flat program, if that is asked for; a `shard_map`, as equations that each run in
its region; a conditional on the platform, as what runs on that platform. A primitive
without a rule (other conditionals, custom kernels, whatever comes next) stays one
equation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax.extend.core as jex_core
from jax.sharding import NamedSharding, Sharding

from .. import compat
from .flat import Flat, FlatEquation, live
from .inside import Inside
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
from .platforms import branch_on
from .primitives import RESHARDING
from .regions import Region, region_of
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


def flatten(
    closed: Any,
    whole: Collection[str] = (),
    loops: bool = False,
    closed_loops: Collection[int] = (),
    platform: str | None = None,
) -> Flat:
    """Writes out the calls of a closed jaxpr and drops equations nobody reads.

    **Arguments:**

    - `closed`: a closed jaxpr, as `jax.jit(f).trace(*args).jaxpr`.
    - `whole`: names of primitives that stay one equation, whatever their rule.
    - `loops`: also write out loops.
    - `closed_loops`: but not these, by the `id` of their equations.
    - `platform`: JAX's name of what the step is lowered for; `None` if that is not
        known.

    **Returns:**

    A `Flat`. Equations with effects are kept, in their order.
    """
    flat = live(_Flattening(whole, loops, closed_loops, platform).run(closed))
    busy = {each for e in flat.equations for each in path_of(flat.loops, e.loop)}
    if len(busy) < len(flat.loops):  # a loop that computes nothing has no place here
        return flatten(closed, whole, platform=platform)
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

    def __init__(
        self,
        whole: Collection[str],
        opens: bool,
        closed: Collection[int],
        platform: str | None,
    ):
        self.whole, self.opens, self.closed = whole, opens, closed
        self.platform = platform
        self.avals: list[Any] = []
        self.constants: list[tuple[int, Any]] = []
        self.equations: list[FlatEquation] = []
        self.loops: list[Loop | None] = []
        self.known: dict[int, int] = {}
        self.shardings: dict[int, NamedSharding] = {}
        self.inside: Inside | None = None  # the manual region that is written out now

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
            self.shardings,
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
            number, inside = self.known.get(id(const)), self.inside
            if number is None or not (inside is None or inside.takes_whole(number)):
                number = self.known[id(const)] = self.new(var.aval)
                self.constants.append((number, const))
            if inside is not None:
                inside.takes_whole(number)
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
        is_open = self.opens and id(eqn) not in self.closed and self._may_open(eqn)
        if write_loop is not None and is_open and not why_whole(eqn):
            return write_loop(self, eqn, operands, loop)
        body, inputs = self._body(eqn, operands)
        if body is not None and len(body.jaxpr.invars) == len(inputs):
            if self.inside is not None:
                self.inside.calls(eqn, body)
            return self.write_out(body, inputs, loop)
        if self.inside is not None:
            return self.inside.equation(eqn, operands, loop)
        if name == "shard_map" and name not in self.whole:
            region = region_of(eqn, operands)
            if region is not None:
                return self.shard_map(region, eqn, operands, loop)
        if name in RESHARDING and _is_for_one_device(eqn):
            return operands
        outputs = tuple(self.new(v.aval) for v in eqn.outvars)
        self.equations.append(FlatEquation(eqn, tuple(operands), outputs, loop))
        return outputs

    def _body(
        self, eqn: jex_core.JaxprEqn, operands: list[Any]
    ) -> tuple[Any | None, list[Any]]:
        """The closed jaxpr to write out for an equation, if any, and what it takes."""
        # A context (compute type, XLA metadata) belongs to the whole call.
        if not self._may_write_out(eqn.primitive.name) or compat.has_context(eqn):
            return None, operands
        branch = branch_on(self.platform, eqn)
        if branch is not None:
            return branch, operands[1:]  # the first says which branch
        rule = _rules.get(eqn.primitive.name)
        return (None if rule is None else rule(eqn)), operands

    def _may_open(self, eqn: jex_core.JaxprEqn) -> bool:
        # Whether a `while` in a region goes on, each device decides for itself.
        return self.inside is None or eqn.primitive.name == "scan"

    def _may_write_out(self, name: str) -> bool:
        # In a region, no plan chooses among variants.
        return name not in self.whole or (self.inside is not None and name == VARIANTS)

    def shard_map(
        self,
        region: Region,
        eqn: jex_core.JaxprEqn,
        operands: list[Any],
        loop: int | None,
    ) -> Sequence[Any]:
        self.inside = inside = Inside(region, self, eqn, operands)
        body = compat.closed(eqn.params["jaxpr"])
        results = inside.returned(self.write_out(body, operands, loop), loop)
        self.inside = None
        return results

    def scan(
        self, eqn: jex_core.JaxprEqn, operands: list[Any], parent: int | None
    ) -> Sequence[Any]:
        body, params, inside = eqn.params["jaxpr"], eqn.params, self.inside
        shared, carried = compat.scan_operands(eqn)
        index = len(self.loops)
        self.loops.append(None)  # those inside it follow
        counter = self.new(COUNTER)
        entered = [v.aval for v in body.jaxpr.invars[shared:][:carried]]
        initial = operands[shared : shared + carried]
        stacked = operands[shared + carried :]
        if inside is None:
            before = [self.new(aval) for aval in entered]
        else:
            initial, before = inside.carried(initial, entered, parent)
            avals = [v.aval for v in eqn.invars[shared + carried :]]
            stacked = inside.sliced(stacked, avals, parent)
        each = [self.slice(whole, counter, index, eqn) for whole in stacked]
        made = self.write_out(body, [*operands[:shared], *before, *each], index)
        if inside is None:
            results = [self.new(v.aval) for v in eqn.outvars]
        else:
            made[:carried] = inside.handed_on(made[:carried], before, entered, index)
            results = inside.left(before, made[carried:], eqn)
        carries = zip(initial, before, made, results, strict=False)
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
        inside, self.inside = self.inside, None  # whole arrays have the same slices
        (each,) = self.write_out(slicing(aval), [whole, counter], loop)
        self.inside = inside
        if inside is not None:
            inside.slices(whole, each)
        # It is the user's loop that takes slices.
        self.equations[first:] = [
            dataclasses.replace(e, eqn=e.eqn.replace(source_info=scan.source_info))
            for e in self.equations[first:]
        ]
        return each


_LOOPS = {"scan": _Flattening.scan, "while": _Flattening.while_loop}
