"""Running the equations of a fragment, each buffer made no earlier than its cut.

A buffer that depends on nothing (zeros to scatter into) is ready at the start of the
program, and that is where XLA:GPU's scheduler puts it: it then lives through every
segment before the one that uses it. Such buffers are *anchored* here: filled with a
scalar that has gone through a barrier with something the fragment reads.
"""

from __future__ import annotations

from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
from jax.extend.core import primitives

from .. import compat
from .loops import can_be_filled
from .primitives import Kind
from .program import Equation, Fragment, Program
from .regions import in_runs, run_in_region
from .sharding import held
from .updates import after, updates


Anchor = Callable[[Any], jax.Array]
Evaluation = Callable[..., Sequence[Any]]

_rules: dict[str, Evaluation] = {}


def register_evaluation(name: str) -> Callable[[Evaluation], Evaluation]:
    """Registers how a primitive is run whose lowering fills a buffer by itself.

    The rule takes `(anchor, eqn, *operands)`, where `anchor` turns a scalar into an
    equal one that exists no earlier than the cut before the fragment, and returns the
    list of results. Without a rule a primitive is bound as it was traced.

    **Arguments:**

    - `name`: the name of the primitive.

    **Returns:**

    A decorator.
    """

    def register(rule: Evaluation) -> Evaluation:
        _rules[name] = rule
        return rule

    return register


@register_evaluation("select_and_scatter_add")
def _select_and_scatter_add(
    anchor: Anchor, eqn: Any, source: jax.Array, operand: jax.Array
) -> Sequence[Any]:
    # The backward pass of max pooling. XLA:GPU expands it into a scatter into zeros;
    # its general form takes the zero as an operand. As in JAX's own lowering for GPU,
    # padding is written out.
    params = eqn.params
    dtype = operand.dtype
    aval = jax.ShapeDtypeStruct((), dtype)
    select = jax.make_jaxpr(params["select_prim"].bind)(aval, aval)
    scatter = jax.make_jaxpr(jax.lax.add)(aval, aval)
    padding = params["padding"]
    never_chosen = _least if params["select_prim"].name == "ge" else _greatest
    padded = jax.lax.pad(
        operand,
        jnp.array(never_chosen(dtype), dtype),
        [(low, high, 0) for low, high in padding],
    )
    out = primitives.select_and_scatter_p.bind(
        padded,
        source,
        anchor(jnp.zeros((), dtype)),
        select_jaxpr=select.jaxpr,
        select_consts=(),
        scatter_jaxpr=scatter.jaxpr,
        scatter_consts=(),
        window_dimensions=tuple(params["window_dimensions"]),
        window_strides=tuple(params["window_strides"]),
        padding=tuple((0, 0) for _ in padding),
    )
    start = [low for low, _ in padding]
    limit = [low + size for (low, _), size in zip(padding, operand.shape, strict=True)]
    return [jax.lax.slice(out, start, limit)]


def _least(dtype: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _greatest(dtype: Any) -> Any:
    return jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


@register_evaluation("scan")
def _scan(anchor: Anchor, eqn: Any, *operands: Any) -> Sequence[Any]:
    # XLA:GPU is given a buffer of zeros for each stack of results, which the loop fills
    # slice by slice: as JAX lowers it, with the buffers as carries.
    closed = eqn.params["jaxpr"]
    shared, carried = compat.scan_operands(eqn)
    stacked = closed.out_avals[carried:]
    is_run = eqn.params["length"] > 0
    can_be_written = stacked and is_run and all(map(can_be_filled, stacked))
    if not can_be_written or compat.has_context(eqn):
        return compat.bind(eqn, *operands)
    length, reverse = eqn.params["length"], eqn.params["reverse"]
    body = jex_core.jaxpr_as_fun(closed)
    constants, slices = operands[:shared], operands[shared + carried :]

    def once(state: Any, slices: Any) -> tuple[Any, None]:
        at, carries, stacks = state
        results = body(*constants, *carries, *slices)
        pairs = zip(stacks, results[carried:], strict=True)
        stacks = [jax.lax.dynamic_update_index_in_dim(s, x, at, 0) for s, x in pairs]
        return (at - 1 if reverse else at + 1, results[:carried], stacks), None

    buffers = [
        jnp.full((length, *a.shape), anchor(jnp.zeros((), a.dtype)), a.dtype)
        for a in stacked
    ]
    first = jnp.int32(length - 1 if reverse else 0)
    (_, carries, stacks), _ = jax.lax.scan(
        once,
        (first, list(operands[shared : shared + carried]), buffers),
        list(slices),
        length,
        reverse,
        eqn.params["unroll"],
    )
    return [*carries, *stacks]


def evaluate(
    program: Program,
    fragment: Fragment,
    read: Callable[[int], Any],
    since: jax.Array | None = None,
) -> dict[int, Any]:
    """Runs the equations of a fragment under the current trace.

    **Arguments:**

    - `program`, `fragment`: what to run.
    - `read`: gives the array of each value in `fragment.reads`.
    - `since`: for a fragment that reads nothing, an array that has gone through the cut
        before it, if any has.

    **Returns:**

    The arrays of `fragment.writes` by value index.
    """
    env = {value: read(value) for value in fragment.reads}
    smallest = min(fragment.reads, key=lambda v: program.values[v].nbytes, default=None)
    tie = since if smallest is None else env[smallest]

    def anchor(scalar: Any) -> jax.Array:
        if tie is None or compat.is_key_type(tie.aval):
            return scalar
        return jax.lax.optimization_barrier((scalar, tie))[0]

    equations = [program.equations[i] for i in fragment.equations]
    # The type of a result may be weak, and a filled one's is not.
    avals = {v: program.values[v].aval for v in fragment.writes}
    leaving = (v for v, a in avals.items() if not getattr(a, "weak_type", False))
    floating = _filled_buffers(equations, leaving)

    def run(equation: Equation, env: Mapping[int, Any]) -> Sequence[Any]:
        operands = [
            i.val if isinstance(i, jex_core.Literal) else env[i]
            for i in equation.inputs
        ]
        if equation.index in floating:
            (literal,) = equation.inputs
            operands = [anchor(jnp.asarray(literal.val, literal.aval.dtype))]
        rule = _rules.get(equation.eqn.primitive.name)
        if rule is None:
            return compat.bind(equation.eqn, *operands)
        return rule(anchor, equation.eqn, *operands)

    overwriting = updates(program, fragment)
    late = after(equations, (i for update in overwriting for i in update.readers))
    for together in in_runs(e for e in equations if e.index not in late):
        if together[0].manual is not None:
            done = {e.index for e in together}
            others = (e for e in equations if e.index not in done)
            later = {v for e in others for v in e.operands}
            env.update(run_in_region(together, env, later.union(fragment.writes)))
        else:
            (equation,) = together
            env.update(zip(equation.outputs, run(equation, env), strict=True))
    last: dict[int, dict[int, Any]] = defaultdict(dict)  # by equation
    for update in overwriting:
        values = update.argument, *update.awaited
        handles = jax.lax.optimization_barrier([env[v] for v in values])
        found = {
            v: held(handle, program.values[v].sharding)
            for v, handle in zip(values, handles, strict=True)
        }
        for reader in update.readers:
            last[reader][update.argument] = found[update.argument]
        env.update((v, found[v]) for v in update.awaited)
    for equation in (e for e in equations if e.index in late):
        outputs = run(equation, ChainMap(last[equation.index], env))
        env.update(zip(equation.outputs, outputs, strict=True))
    return {v: held(env[v], program.values[v].sharding) for v in fragment.writes}


def _filled_buffers(equations: Sequence[Equation], writes: Iterable[int]) -> set[int]:
    # Broadcasts of a literal that something other than fused work reads, or that leave
    # the fragment: what a loop begins with.
    read = {v for e in equations if e.kind is not Kind.FUSED for v in e.operands}
    read.update(writes)
    return {
        e.index
        for e in equations
        if e.eqn.primitive.name == "broadcast_in_dim"
        and len(e.inputs) == 1
        and isinstance(e.inputs[0], jex_core.Literal)
        and e.outputs[0] in read
    }
