"""What XLA does with a primitive: fuse it, materialise its result, or launch it.

The three kinds decide the shape of the whole program graph:

- `FUSED` work is done inside whichever kernel consumes it, so its result takes no
  memory of its own and may be computed again wherever its inputs are at hand.
- A `MEMORY` operation (a reduction, a scatter, a pooling window) writes its result to
    memory but takes no longer than reading its operands. It stays in the segment of
    the kernel before it, where XLA can still reuse buffers in place: nothing is
    reused in place across a cut.
- A `KERNEL` writes its result to memory and is where the program may be cut.

Primitives are classified by name where the name is known and by a property of their
lowering where it is not: a primitive that lowers to nothing but element-wise
StableHLO is fused. Everything else is a `KERNEL`, which is always right and at worst
keeps a value in memory that need not be there.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

from .. import compat


class Kind(enum.Enum):
    """How XLA treats the result of an equation."""

    FUSED = "fused"
    MEMORY = "memory"
    KERNEL = "kernel"


_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type
    cbrt ceil clamp clz complex conj convert_element_type copy copy_p cos cosh digamma
    div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite
    le le_to lgamma log log1p logistic lt lt_to max min mul ne neg nextafter not
    one_minus_square or population_count pow real reduce_precision rem round rsqrt
    select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt
    square stop_gradient sub tan tanh xor
""".split()

_DATA_MOVEMENT = """
    broadcast_in_dim concatenate dynamic_slice empty expand_dims iota pad reshape
    reshard rev sharding_constraint slice split squeeze stack tile transpose unstack
""".split()

# What a kernel reads through without a copy.
VIEWS = frozenset({"expand_dims", "pvary", "reshape", "squeeze", "transpose"})

RESHARDING = frozenset({"sharding_constraint", "reshard"})
"""Primitives that may send parts of their operand from device to device."""

# Of a manual region: who a device is, and what JAX keeps track of.
_MANUAL = "axis_index preduced pvary vary_unreduced_cast vary_unreduced_cast_p".split()

# Pure functions of their key: the same key gives the same bits, however often.
_RANDOM = """
    random_bits random_clone random_fold_in random_seed random_split random_unwrap
    random_wrap threefry2x32
""".split()

_MEMORY_BOUND = """
    argmax argmin cumlogsumexp cummax cummin cumprod cumsum dynamic_update_slice gather
    optimization_barrier reduce reduce_and reduce_max reduce_min reduce_or reduce_prod
    reduce_sum reduce_window reduce_window_max reduce_window_min reduce_window_sum
    reduce_xor scatter scatter-add scatter-max scatter-min scatter-mul scatter_add
    scatter_max scatter_min scatter_mul select_and_gather_add select_and_scatter
    select_and_scatter_add
""".split()

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_ELEMENTWISE + _DATA_MOVEMENT + _MANUAL + _RANDOM, Kind.FUSED),
    **dict.fromkeys(_MEMORY_BOUND, Kind.MEMORY),
}

# Primitives whose result is a new one each time they run.
_NONDETERMINISTIC = {"rng_uniform", "random_gamma"}

# What holds equations and says nothing else about them.
_CALLS = {"closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit"}

# Programs inside an equation, calls out of XLA, and what the user has already
# arranged to recompute: run exactly where and as often as they are written.
_NEVER_AGAIN = {
    "checkpoint",
    "custom_jvp_call",
    "custom_lin",
    "custom_linear_solve",
    "custom_partitioning",
    "custom_vjp_call",
    "device_put",
    "ffi_call",
    "infeed",
    "jit",
    "optimization_barrier",
    "outfeed",
    "pallas_call",
    "pure_callback",
    "remat",
    "remat2",
    "shard_map",
    "while",
}

# Programs inside an equation that may run as often as what is inside may. How long a
# `while` takes, nobody knows.
_CONTROL = {"cond", "scan"}


def register_kind(name: str, kind: Kind) -> None:
    """Says how XLA treats a primitive that the table does not know.

    **Arguments:**

    - `name`: the name of the primitive.
    - `kind`: a `Kind`.

    **Returns:**

    Nothing.
    """
    _KINDS[name] = kind


def kind_of(eqn: Any) -> Kind:
    """The `Kind` of an equation, by name, by lowering, or by the safe default."""
    if compat.has_effects(eqn):
        return Kind.KERNEL
    known = _KINDS.get(eqn.primitive.name)
    if known is not None:
        return known
    if eqn.primitive.name in {*_CONTROL, *_NEVER_AGAIN, *_NONDETERMINISTIC}:
        return Kind.KERNEL
    return Kind.FUSED if _lowers_elementwise(eqn) else Kind.KERNEL


def is_repeatable(eqn: Any) -> bool:
    """Whether running an equation a second time gives the same and costs only time."""
    if compat.has_effects(eqn) or compat.has_context(eqn):
        return False
    if eqn.primitive.name in _CONTROL:
        return all(map(_is_repeatable_inside, jaxprs_in_params(eqn.params)))
    return eqn.primitive.name not in _NEVER_AGAIN | _NONDETERMINISTIC


def _is_repeatable_inside(body: Any) -> bool:
    def may_run(eqn: Any) -> bool:
        # A call that only groups equations asks for nothing itself.
        inner = jaxprs_in_params(eqn.params) if eqn.primitive.name in _CALLS else ()
        found = list(inner)
        return all(map(_is_repeatable_inside, found)) if found else is_repeatable(eqn)

    return all(map(may_run, compat.closed(body).jaxpr.eqns))


_STABLEHLO_ELEMENTWISE = (
    "abs add and atan2 bitcast_convert broadcast_in_dim cbrt ceil clamp compare complex"
    " constant convert cosine divide exponential exponential_minus_one floor imag"
    " is_finite log log_plus_one logistic maximum minimum multiply negate not or"
    " power real reduce_precision remainder reshape return rsqrt select shift_left"
    " shift_right_arithmetic shift_right_logical sign sine sqrt subtract tan tanh xor"
)
_ELEMENTWISE_OPS = frozenset(_STABLEHLO_ELEMENTWISE.split())
_OP = re.compile(r"\b(stablehlo|chlo)\.(\w+)")


def _lowers_elementwise(eqn: Any) -> bool:
    # Only results shaped like an operand can be element-wise: everything else, and
    # everything that cannot be lowered alone, is left to the default.
    if len(eqn.outvars) != 1 or any(True for _ in jaxprs_in_params(eqn.params)):
        return False
    out = eqn.outvars[0].aval
    shapes = {getattr(v.aval, "shape", None) for v in eqn.invars}
    if not shapes or not shapes <= {out.shape, ()} or compat.is_key_type(out):
        return False
    try:
        key = (eqn.primitive, tuple(sorted(eqn.params.items())))
        return _lowers_elementwise_cached(key, tuple(v.aval for v in eqn.invars))
    except Exception:  # noqa: BLE001 - a primitive of unknown make may raise anything
        return False


@functools.lru_cache(maxsize=1024)
def _lowers_elementwise_cached(key: Any, avals: tuple[Any, ...]) -> bool:
    primitive, params = key

    def run(*operands: Any) -> Any:
        return primitive.bind(*operands, **dict(params))

    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    text = jax.jit(run).lower(*shapes).as_text()
    ops = {(dialect, name) for dialect, name in _OP.findall(text)}
    return all(dialect == "chlo" or name in _ELEMENTWISE_OPS for dialect, name in ops)
