"""What differs between JAX versions, or has no public name, in one place."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.extend import source_info_util


JAX_VERSION = jax.__version__
JAXLIB_VERSION = importlib.metadata.version("jaxlib")

# jaxlib < 0.11.1 on CUDA: slices of stacks in host memory come from wrong offsets.
READS_WRONG_SLICES = jaxlib.version.__version_info__ < (0, 11, 1)

# jaxlib >= 0.11: what XLA dumps names elements of tuples in a short form (`%name#1`),
# which the text of an executable does not have.
DUMPS_SHORT_TUPLES = jaxlib.version.__version_info__ >= (0, 11)

# JAX 0.10.2, for a GPU that is not here: of some matmuls that Triton is to write, XLA
# finds no tiles without trying them out (jax-ml/jax#34010). That of JAX 0.12 does.
_NO_TILES = "Couldn't find output tile sizes"


def lacks_tiles(error: BaseException) -> bool:
    """Whether XLA could not compile a step because Triton was to write a matmul."""
    return _NO_TILES in str(error)


def constants_of(closed: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """The constant variables of a closed jaxpr and the arrays bound to them."""
    # JAX >= 0.11: `ClosedJaxpr is Jaxpr` and `.jaxpr` is the object itself.
    return closed.jaxpr.constvars, closed.consts


def bind(eqn: jex_core.JaxprEqn, *values: Any) -> Sequence[Any]:
    """Runs one equation as JAX's own evaluator does.

    Source line, name stack and context (compute type, XLA metadata, PRNG
    configuration) are those of the original equation.
    """
    params = eqn.primitive.get_bind_params(eqn.params)
    name_stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    user = source_info_util.user_context(
        eqn.source_info.traceback, name_stack=name_stack
    )
    with user, eqn.ctx.manager:
        out = eqn.primitive.bind(*values, **params)
    return out if eqn.primitive.multiple_results else [out]


def source_line(eqn: jex_core.JaxprEqn) -> str:
    """`file.py:12:3 (function)` of the user's code that made an equation."""
    return source_info_util.summarize(eqn.source_info)


def argument_names(closed: Any) -> list[str]:
    """`state['w']`, as the user calls them, of the flat arguments of a closed jaxpr."""
    count = len(closed.jaxpr.invars)
    # Not every jaxpr says them, nor all of them.
    known = getattr(closed.jaxpr.debug_info, "arg_names", None) or ()
    names = [*known[:count], *[None] * (count - len(known))]
    return [str(n) if name is None else name for n, name in enumerate(names)]


def name_stack(eqn: jex_core.JaxprEqn) -> str:
    """`transpose(jvp(attention))`: transformations and scopes of an equation."""
    return str(eqn.source_info.name_stack)


def has_context(eqn: jex_core.JaxprEqn) -> bool:
    """Whether an equation carries a compute type or XLA metadata of its own."""
    # The field set of the context grew over the versions: read it defensively.
    return (
        getattr(eqn.ctx, "compute_type", None) is not None
        or getattr(eqn.ctx, "xla_metadata", None) is not None
    )


def closed(jaxpr: Any) -> Any:
    """A jaxpr without constants as a closed one; closed ones are returned."""
    # JAX >= 0.11: every jaxpr is.
    is_closed = isinstance(jaxpr, jex_core.ClosedJaxpr)
    return jaxpr if is_closed else jex_core.ClosedJaxpr(jaxpr, ())


def scan_operands(eqn: jex_core.JaxprEqn) -> tuple[int, int]:
    """How many operands of a `scan` its body reads whole, and how many it carries."""
    # JAX >= 0.11: the trees of constants, carries and slices instead of counts.
    trees = eqn.params.get("ft_in")
    if trees is None:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    constants, carries, _ = (len(tree) for tree in trees.unpack())
    return constants, carries


def has_ordered_effects(closed: Any) -> bool:
    """Whether a program has effects that threads a token through its calls."""
    # No public name tells ordered effects from unordered ones.
    names = (type(effect).__name__ for effect in closed.jaxpr.effects)
    return any("Ordered" in n and "Unordered" not in n for n in names)


def has_effects(eqn: jex_core.JaxprEqn) -> bool:
    """Whether an equation does something besides making its results."""
    # No public name of the type. JAX counts it as an effect to name an axis.
    return any(type(e).__name__ != "NamedAxisEffect" for e in eqn.effects)


def is_key_type(aval: Any) -> bool:
    """Whether an abstract value is an array of typed PRNG keys."""
    return jnp.issubdtype(aval.dtype, jax.dtypes.extended)


def is_reference(aval: Any) -> bool:
    """Whether an abstract value is a mutable array."""
    # No public name of the type. What there is of it in a step has the type's name.
    return type(aval).__name__ == "AbstractRef"


def is_on_host(aval: Any) -> bool:
    """Whether an abstract value is one in host memory."""
    # Tokens and other abstract values without storage have no memory space.
    return getattr(aval, "memory_space", None) == jax.memory.Space.Host


def is_explicitly_sharded(aval: Any) -> bool:
    """Whether a sharding is part of the type of an abstract value."""
    # Tokens and other abstract values without storage have none.
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    types = getattr(mesh, "axis_types", None) or ()
    return any(t == jax.sharding.AxisType.Explicit for t in types)


def concrete_mesh(mesh: Any) -> jax.sharding.Mesh | None:
    """A mesh with its devices; of an abstract one, those of the mesh that is set."""
    # Only where nothing is traced does JAX say which mesh is set.
    if isinstance(mesh, jax.sharding.Mesh):
        return mesh
    found = jax.sharding.get_mesh() if at_top_level() else None
    return found if found is not None and found.abstract_mesh == mesh else None


def manual_axes(eqn: jex_core.JaxprEqn) -> frozenset[str]:
    """The axes of the mesh of a `shard_map` that are not XLA's to divide."""
    # The name differs between versions; without a known one, nothing is known.
    params = eqn.params
    return frozenset(params.get("newly_manual_axes", params.get("manual_axes", ())))


def varying_axes(aval: Any) -> frozenset[str]:
    """Of an abstract value in a `shard_map`, the axes along which devices differ."""
    # No public name but in the text of a type.
    return frozenset(aval.manual_axis_type.varying)


def is_partial_sum(aval: Any) -> bool:
    """Whether devices in a `shard_map` have parts of a sum, or what is to be one."""
    # Tokens and other abstract values without storage have no such type.
    found = getattr(aval, "manual_axis_type", None)
    return bool(getattr(found, "unreduced", ()) or getattr(found, "reduced", ()))


def abstract_array(
    shape: tuple[int, ...], like: Any, sharding: jax.sharding.NamedSharding
) -> Any:
    """An abstract array of another shape, sharded as far as that is part of types."""
    # No public name makes a type that is weak, or sharded explicitly.
    mesh = sharding.mesh
    out = type(like)(shape, like.dtype, weak_type=like.weak_type)
    if jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return out
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    spec = explicit_part(sharding.spec, kinds)
    spec = jax.sharding.PartitionSpec(*spec, *[None] * (len(shape) - len(spec)))
    typed = jax.sharding.NamedSharding(mesh.abstract_mesh, spec)
    return out.update(sharding=typed)


def explicit_part(spec: Any, kinds: Any) -> Any:
    """That part of a partition which is part of types."""

    def named(entry: Any) -> Any:
        names = entry if isinstance(entry, tuple) else (entry,)
        kept = tuple(n for n in names if kinds.get(n) is jax.sharding.AxisType.Explicit)
        return kept if len(kept) > 1 else next(iter(kept), None)

    return jax.sharding.PartitionSpec(*map(named, spec))


def device_count(sharding: jax.sharding.Sharding) -> int:
    """How many devices an array is on; of an abstract mesh, how many there would be."""
    # An abstract mesh has no devices to count.
    mesh = getattr(sharding, "mesh", None)
    return len(sharding.device_set) if mesh is None else mesh.size


def key_implementation(aval: Any) -> str:
    """The name of the generator that an abstract array of typed PRNG keys is for."""
    # `jax.random.key_impl` takes arrays only.
    return aval.dtype._impl.name


def itemsize_bits(dtype: Any) -> int:
    """Bits per element of a dtype as XLA:GPU stores it."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return 8 * dtype.itemsize
    name = np.dtype(dtype).name
    if name in ("int4", "uint4", "float4_e2m1fn"):
        return 4
    if name in ("int2", "uint2"):
        return 2
    return 8 * np.dtype(dtype).itemsize


def _trace_state() -> Any:
    # The only public name for "which trace is current".
    return jex_core.get_opaque_trace_state(convention="nnx")


_TOP_LEVEL = _trace_state()


def at_top_level() -> bool:
    """Whether a call on this thread would be compiled: no trace, and jit enabled."""
    # The attribute is there in every version, if not in the type stubs.
    is_disabled = getattr(jax.config, "jax_disable_jit")  # noqa: B009
    return _trace_state() == _TOP_LEVEL and not is_disabled


def jaxpr_of_function(fun: Callable[..., Any], *avals: Any) -> Any:
    """The closed jaxpr of a flat function of abstract values."""
    return jax.make_jaxpr(fun)(*avals)
