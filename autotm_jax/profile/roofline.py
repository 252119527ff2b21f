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
    time = sum(_kernel_seconds(program, e, machine) for e in kernels)
    passes = _passes(program, fragment, equations)
    traffic = sum(_nbytes(program, values) for values in passes)
    launches = max(1, len(kernels) + len(passes))
    return (
        time + traffic / machine.device_bandwidth + launches * machine.launch_overhead
    )


def _passes(
    program: Program, fragment: Fragment, equations: list[Equation]
) -> list[set[int]]:
    """The values that each fused kernel of a fragment reads and writes.

    Fused work runs in one pass over its roots, together with the reductions that read
    the same; what hangs on the result of a reduction has to wait for another pass.
    """
    level: dict[int, int] = dict.fromkeys(fragment.reads, 0)
    roots: dict[int, set[int]] = {v: {v} for v in fragment.reads}
    wanted = set(fragment.writes)
    wanted |= {v for e in equations if e.kind is Kind.KERNEL for v in e.operands}
    passes: dict[int, set[int]] = {}
    for equation in equations:
        depth = max((level[v] for v in equation.operands), default=0)
        sources = set().union(*(roots[v] for v in equation.operands))
        for output in equation.outputs:
            level[output], roots[output] = depth, sources
            if equation.kind is Kind.MEMORY:
                level[output] = depth + 1
            computed = equation.kind is Kind.FUSED and not _is_view(equation)
            written = equation.kind is Kind.MEMORY or (computed and output in wanted)
            if written:
                passes.setdefault(depth, set()).update(sources, [output])
            if equation.kind is not Kind.FUSED or written:
                roots[output] = {output}
    return list(passes.values())


def _is_view(equation: Equation) -> bool:
    name = equation.eqn.primitive.name
    return name in ("reshape", "squeeze", "transpose", "broadcast_in_dim", "split")


def _kernel_seconds(program: Program, equation: Equation, machine: Machine) -> float:
    values = (*equation.operands, *equation.outputs)
    dtype = (
        program.values[equation.operands[0]].aval.dtype if equation.operands else "f"
    )
    try:
        rate = machine.flop_rate(dtype)
    except TypeError:  # a key or another extended dtype
        rate = machine.flops["default"]
    compute = flops(equation.eqn) / rate
    return max(compute, _nbytes(program, values) / machine.device_bandwidth)


def _nbytes(program: Program, values: Any) -> int:
    return sum(program.values[v].nbytes for v in set(values))
