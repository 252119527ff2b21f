"""Time from a machine's description: flops and bytes of each kernel of a fragment.

Seconds of a fragment are the sum over its kernels of
`max(flops / flop rate, bytes / bandwidth)`, plus the traffic of the fused work and the
reductions around them, plus the launches. A `scan` takes what its body does, as often
as it runs; so does a `jax.checkpoint` region, once, and a `cond` takes what its slowest
branch does. Modelled, not measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jax.extend.core import jaxprs_in_params

from .. import compat
from ..machine import Machine
from ..trace import (
    VARIANTS,
    VIEWS,
    Equation,
    Fragment,
    Kind,
    Order,
    Program,
    build_program,
)
from .exchange import exchanged_bytes


FlopsRule = Callable[[Any], float]

_rules: dict[str, FlopsRule] = {}

# What runs the jaxpr that it holds, a known number of times; or one of several.
_BODIES = {"checkpoint", "cond", "remat", "remat2", "scan"}


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


@register_flops("cond")
def _cond_flops(eqn: Any) -> float:
    return max(map(_flops_of, eqn.params["branches"]))


@register_flops("dot_product_attention_fwd_wrapper")
def _cudnn_forward_flops(eqn: Any) -> float:
    # Of `jax.nn.dot_product_attention`: (batch, length, heads, size), two products.
    queries, keys = (v.aval for v in eqn.invars[:2])
    # What a causal mask hides is not computed.
    share = 0.5 if "CAUSAL" in str(eqn.params["mask_type"]) else 1.0
    return share * 4.0 * queries.size * keys.shape[1]


@register_flops("dot_product_attention_bwd_wrapper")
def _cudnn_backward_flops(eqn: Any) -> float:
    return 2.5 * _cudnn_forward_flops(eqn)  # five products


@register_flops(VARIANTS)
def _default_flops(eqn: Any) -> float:
    return _flops_of(eqn.params["branches"][0])


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
    - `machine`: where. On a mesh, each of its devices is one.

    **Returns:**

    Seconds. What devices send one another is taken to run beside nothing.
    """
    equations = [program.equations[i] for i in fragment.equations]
    kernels = [e for e in equations if e.kind is Kind.KERNEL]
    time = sum(kernel_seconds(program, e, machine) for e in kernels)
    fused = passes(program, fragment, equations)
    traffic = sum(_nbytes(program, values) for values in fused)
    launches = max(1, len(kernels) + len(fused))
    time += traffic / machine.device_bandwidth + launches * machine.launch_overhead
    sent = sum(exchanged_bytes(program, e) for e in equations)
    return time + sent / machine.mesh_bandwidth


@dataclasses.dataclass
class _Work:
    """What reads memory, and in which pass: fused work, a reduction or a kernel."""

    equation: Equation
    sources: set[int]
    at: int

    @property
    def outputs(self) -> tuple[int, ...]:
        return self.equation.outputs


def passes(
    program: Program, fragment: Fragment, equations: list[Equation]
) -> list[set[int]]:
    """The values that each fused kernel of a fragment reads and writes, in order.

    Fused work runs in one pass over its roots, together with the reductions that read
    the same; what hangs on the result of a reduction or of a kernel has to wait for
    another pass, and what hangs on nothing of that kind may join it.
    """
    level: dict[int, int] = dict.fromkeys(fragment.reads, 0)
    roots: dict[int, set[int]] = {v: {v} for v in fragment.reads}
    wanted = set(fragment.writes)
    wanted |= {v for e in equations if e.kind is Kind.KERNEL for v in e.operands}
    works: list[_Work] = []
    for equation in equations:
        depth = max((level[v] for v in equation.operands), default=0)
        sources = set().union(*(roots[v] for v in equation.operands))
        is_fused = equation.kind is Kind.FUSED
        computed = not is_fused or not _is_view(equation)
        written = not is_fused or (computed and not wanted.isdisjoint(equation.outputs))
        for output in equation.outputs:
            level[output] = depth if is_fused else depth + 1
            roots[output] = {output} if written else sources
        if written:
            works.append(_Work(equation, sources, depth))
    _join(program, works)
    found: dict[int, set[int]] = {}
    for work in works:
        if work.equation.kind is not Kind.KERNEL:
            found.setdefault(work.at, set()).update(work.sources, work.outputs)
    return [found[at] for at in sorted(found)]


def _join(program: Program, works: list[_Work]) -> None:
    # Fused work may wait for a later pass that reads the same, as long as nobody has
    # read its result before.
    last = max((w.at for w in works), default=0)
    needed: dict[int, int] = {}
    reads: dict[int, set[int]] = {}
    for work in reversed(works):
        if work.equation.kind is Kind.FUSED:
            latest = min((needed.get(v, last) for v in work.outputs), default=last)
            choices = range(work.at, latest + 1)
            shared = [
                _nbytes(program, work.sources & reads.get(p, set())) for p in choices
            ]
            work.at += shared.index(max(shared))
        if work.equation.kind is not Kind.KERNEL:
            reads.setdefault(work.at, set()).update(work.sources)
        for value in work.sources:
            needed[value] = min(needed.get(value, last), work.at)


def _is_view(equation: Equation) -> bool:
    name = equation.eqn.primitive.name
    return name in VIEWS or name in ("broadcast_in_dim", "split")


def kernel_seconds(program: Program, equation: Equation, machine: Machine) -> float:
    """Modelled time of a heavy operation by itself."""
    values = (*equation.operands, *equation.outputs)
    dtype = (
        program.values[equation.operands[0]].aval.dtype if equation.operands else "f"
    )
    try:
        rate = machine.flop_rate(dtype)
    except TypeError:  # a key or another extended dtype
        rate = machine.flops["default"]
    # On a mesh, each device does its part; in a manual region, the equation is that.
    ways = 1.0
    if equation.manual is None:
        ways = max((program.values[v].ways for v in values), default=1.0)
    compute = flops(equation.eqn) / ways / rate
    inside = _body_seconds(equation.eqn, machine) / ways
    return max(compute, inside, _nbytes(program, values) / machine.device_bandwidth)


def _body_seconds(eqn: Any, machine: Machine) -> float:
    # What passes through memory within a loop is in neither its flops nor its operands.
    if eqn.primitive.name not in _BODIES:
        return 0.0
    bodies = eqn.params.get("branches") or [eqn.params["jaxpr"]]
    once = max(_once(compat.closed(body), machine) for body in bodies)
    return eqn.params.get("length", 1) * once


def _once(body: Any, machine: Machine) -> float:
    donated = [False] * len(body.jaxpr.invars)
    program = build_program(body, donated, Order.AS_TRACED)
    times = zip(program.repeats, program.segments, strict=True)
    return sum(n * seconds(program, s.body, machine) for n, s in times)


def _nbytes(program: Program, values: Any) -> int:
    return sum(program.values[v].nbytes for v in set(values))
