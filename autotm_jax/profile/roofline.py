"""Time from a machine's description: flops and bytes of each kernel of a fragment.

Seconds of a fragment are the sum over its kernels of
`max(flops / flop rate, bytes / bandwidth)`, plus the traffic of the fused work and the
reductions around them, plus the launches. Modelled, not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jax.extend.core import jaxprs_in_params

from ..machine import Machine
from ..trace import Equation, Fragment, Kind, Program


FlopsRule = Callable[[Any], float]

_rules: dict[str, FlopsRule] = {}


def register_flops(name: str) -> Callable[[FlopsRule], FlopsRule]:
    """Registers how many floating-point operations a primitive takes.

    The rule takes a JAX equation. Without a rule, a primitive takes one operation per
    element of its results, and one that holds jaxprs takes theirs.

    **Arguments:**

    - `name`: the name of the primitive.

    **Returns:**

    A decorator.
    """

    def register(rule: FlopsRule) -> FlopsRule:
        _rules[name] = rule
        return rule

    return register


@register_flops("dot_general")
def _dot_flops(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    depth = math.prod(eqn.invars[0].aval.shape[d] for d in contracted)
    return 2.0 * eqn.outvars[0].aval.size * depth


@register_flops("conv_general_dilated")
def _conv_flops(eqn: Any) -> float:
    kernel = eqn.invars[1].aval
    out_channels = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    # Zeros put between elements are not multiplied by a kernel worth its name.
    dilation = math.prod(eqn.params["lhs_dilation"])
    per_output = kernel.size / max(1, out_channels) / max(1, dilation)
    return 2.0 * eqn.outvars[0].aval.size * per_output


@register_flops("scan")
def _scan_flops(eqn: Any) -> float:
    return eqn.params["length"] * _flops_of(eqn.params["jaxpr"])


def flops(eqn: Any) -> float:
    """Floating-point operations of one JAX equation."""
    rule = _rules.get(eqn.primitive.name)
    if rule is not None:
        return rule(eqn)
    bodies = list(jaxprs_in_params(eqn.params))
    if bodies:
        return sum(map(_flops_of, bodies))
    return float(sum(getattr(v.aval, "size", 0) for v in eqn.outvars))


def _flops_of(jaxpr: Any) -> float:
    return sum(flops(eqn) for eqn in jaxpr.eqns)


def seconds(program: Program, fragment: Fragment, machine: Machine) -> float:
    """Modelled time of a fragment on a machine, in seconds.

    **Arguments:**

    - `program`, `fragment`: what runs.
    - `machine`: where.

    **Returns:**

    Seconds.
    """
    equations = [program.equations[i] for i in fragment.equations]
    kernels = [e for e in equations if e.kind is Kind.KERNEL]
    taken = {v for e in kernels for v in (*e.operands, *e.outputs)}
    time = sum(_kernel_seconds(program, e, machine) for e in kernels)
    # What the kernels do not read themselves is read once by the fused work; what
    # it hands to them or to the next segment is written once.
    made = {v for e in equations if e.kind is not Kind.KERNEL for v in e.outputs}
    resized = {v for v in made & taken if _is_computed(program, v)}
    moved = [v for v in fragment.reads if v not in taken]
    moved += [v for v in fragment.writes if v in made]
    traffic = _nbytes(program, moved) + _nbytes(program, resized)
    launches = max(1, len(kernels) + bool(traffic))
    return time + traffic / machine.device_bandwidth + launches * machine.launch_overhead


def _is_computed(program: Program, value: int) -> bool:
    producer = program.values[value].producer
    assert producer is not None
    name = program.equations[producer].eqn.primitive.name
    return name not in ("reshape", "squeeze", "transpose", "broadcast_in_dim", "split")


def _kernel_seconds(program: Program, equation: Equation, machine: Machine) -> float:
    values = (*equation.operands, *equation.outputs)
    dtype = program.values[equation.operands[0]].aval.dtype if equation.operands else "f"
    try:
        rate = machine.flop_rate(dtype)
    except TypeError:  # a key or another extended dtype
        rate = machine.flops["default"]
    compute = flops(equation.eqn) / rate
    return max(compute, _nbytes(program, values) / machine.device_bandwidth)


def _nbytes(program: Program, values: Any) -> int:
    return sum(program.values[v].nbytes for v in set(values))
