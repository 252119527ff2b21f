"""Flattening: the jaxpr of a step with its calls written out.

Each higher-order primitive that only groups equations (`jit`, `closed_call`,
`custom_jvp_call`, `custom_vjp_call`) has a rule that names the jaxpr to write out; of
one with variants, that of the default. A primitive without a rule (loops, `remat2`,
sharded regions, custom kernels, whatever comes next) stays one equation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax.extend.core as jex_core

from .. import compat
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


@register_flattening(VARIANTS)
def _flatten_variants(eqn: jex_core.JaxprEqn) -> Any | None:
    return eqn.params["branches"][0]


@dataclasses.dataclass(frozen=True)
class FlatEquation:
    """An equation with its inputs and outputs named by value number.

    An input is an `int` (a value) or a `jax.extend.core.Literal`.
    """

    eqn: jex_core.JaxprEqn
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Flat:
    """A flattened step: values are numbered, arguments first, then constants."""

    avals: tuple[Any, ...]
    arguments: tuple[int, ...]
    constants: tuple[tuple[int, Any], ...]
    equations: tuple[FlatEquation, ...]
    results: tuple[Any, ...]


def flatten(closed: Any, whole: Collection[str] = ()) -> Flat:
    """Writes out the calls of a closed jaxpr and drops equations nobody reads.

    **Arguments:**

    - `closed`: a closed jaxpr, as `jax.jit(f).trace(*args).jaxpr`.
    - `whole`: names of primitives that stay one equation, whatever their rule.

    **Returns:**

    A `Flat`. Equations with effects are kept, in their order.
    """
    avals: list[Any] = []
    constants: list[tuple[int, Any]] = []
    equations: list[FlatEquation] = []

    def new(aval: Any) -> int:
        avals.append(aval)
        return len(avals) - 1

    def write_out(inner: Any, inputs: list[Any]) -> list[Any]:
        env: dict[Any, Any] = {}

        def read(atom: Any) -> Any:
            return atom if isinstance(atom, jex_core.Literal) else env[atom]

        constvars, consts = compat.constants_of(inner)
        for var, const in zip(constvars, consts, strict=True):
            number = known.get(id(const))
            if number is None:
                number = known[id(const)] = new(var.aval)
                constants.append((number, const))
            env[var] = number
        env.update(zip(inner.jaxpr.invars, inputs, strict=True))
        for eqn in inner.jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            name = eqn.primitive.name
            rule = None if name in whole else _rules.get(name)
            # A context (compute type, XLA metadata) belongs to the whole call.
            body = None if rule is None or compat.has_context(eqn) else rule(eqn)
            if body is not None and len(body.jaxpr.invars) == len(operands):
                outputs = write_out(body, operands)
            else:
                outputs = [new(v.aval) for v in eqn.outvars]
                equations.append(FlatEquation(eqn, tuple(operands), tuple(outputs)))
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(v) for v in inner.jaxpr.outvars]

    known: dict[int, int] = {}
    arguments = [new(v.aval) for v in closed.jaxpr.invars]
    results = write_out(closed, list(arguments))
    return Flat(
        tuple(avals),
        tuple(arguments),
        tuple(constants),
        tuple(live_equations(equations, results)),
        tuple(results),
    )


def live_equations(
    equations: Sequence[FlatEquation], results: Sequence[Any]
) -> list[FlatEquation]:
    """The equations that a result or an effect depends on, in their order."""
    wanted = {r for r in results if isinstance(r, int)}
    kept: list[FlatEquation] = []
    for equation in reversed(equations):
        if equation.eqn.effects or wanted.intersection(equation.outputs):
            wanted.update(i for i in equation.inputs if isinstance(i, int))
            kept.append(equation)
    return kept[::-1]
