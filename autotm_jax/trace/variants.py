"""Functions that compute the same, as one equation with a branch for each.

A call of `variants(default, *others)` is one equation of a primitive of its own, whose
branches are the jaxprs of the functions. Who knows nothing of it gets the first: that
is what it lowers to, and what runs eagerly. A plan may run another, at each call.

Its backward pass is one more such equation, whose branches are the vector-Jacobian
products of the functions. They read the operands and the cotangents alone, so each runs
its forward pass again: whatever ran forward, any may run backward.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
from jax.core import eval_jaxpr
from jax.custom_derivatives import SymbolicZero
from jax.extend import source_info_util
from jax.interpreters import batching, mlir

from .. import compat
from ..errors import VariantError


VARIANTS = "variants"
"""The name of the primitive."""

_variants_p = jex_core.Primitive(VARIANTS)
_variants_p.multiple_results = True

# The source line of such an equation is that of the call.
source_info_util.register_exclusion(__file__)


def variants(
    default: Callable[..., Any],
    *others: Callable[..., Any],
    names: Sequence[str] | None = None,
    of: str | None = None,
) -> Callable[..., Any]:
    """Says that functions compute the same, so that a plan may run any of them.

    The result is called as `default` is, and eagerly, under `jax.jit`, `jax.grad` and
    `jax.vmap` it is `default`. Under `autotm_jax.jit` each call of it forms a segment,
    and so does the backward pass of each call: every one runs by the function whose
    time and workspace suit the plan. The backward pass keeps nothing but the arguments
    and runs the function again, as that of `jax.checkpoint(function)` does.

    Where a function raises `NotImplementedError` while it is traced, differentiated or
    batched, it is left out, and plans say so; for `default` that is an error as usual.

    !!! Example

        ```python
        def at_once(x, w):
            return jax.nn.logsumexp(x @ w, axis=-1)

        def by_rows(x, w):
            return jax.lax.map(lambda row: jax.nn.logsumexp(row @ w), x)

        log_sum = autotm.variants(at_once, by_rows)
        ```

    **Arguments:**

    - `default`: a function of pytrees of arrays. What is static is bound beforehand, by
        `functools.partial` for one.
    - `others`: functions of the same arguments, whose results are equal up to rounding
        and have the same shapes and dtypes.
    - `names`: what reports call them, the default first; by default the names of the
        functions.
    - `of`: what reports call that which they compute; by default the name of `default`.

    **Returns:**

    A function. It has no forward-mode derivative (`jax.jvp`).

    **Raises:**

    - `VariantError`: if names are missing or not distinct; and when it is called, if
        results are unlike those of `default` or a function has effects.
    """
    functions = (default, *others)
    called = tuple(map(_name_of, functions) if names is None else names)
    _check_names(called, len(functions))
    computed = _name_of(default) if of is None else of
    sketch = Choice(computed, called, tuple(map(_Function, functions)), ())

    @functools.wraps(default)
    def call(*args: Any, **kwargs: Any) -> Any:
        operands = jax.tree.leaves((args, kwargs))
        traced = sketch.each(lambda f: f.trace(args, kwargs))
        _check_results(traced)
        constants = {id(c): c for t in traced.branches for c in t.constants}
        operands = [*constants.values(), *operands]
        choice = traced.each(lambda t: _with_constants(t, list(constants), operands))
        results = _differentiable(choice)(*operands)
        return jax.tree.unflatten(traced.branches[0].tree, results)

    return call


@dataclasses.dataclass(frozen=True)
class Planned:
    """What is known of a branch that runs by a plan of its own.

    - `added`: seconds that it takes longer than the default.
    - `host_bytes`: of host memory that it takes.
    - `copies`: how many copies between the memories its code has.
    """

    added: float = 0.0
    host_bytes: int = 0
    copies: int = 0


@dataclasses.dataclass(frozen=True)
class Choice:
    """The parameters of an equation with variants.

    - `of`: what reports call that which is computed.
    - `names`: of the branches, the default first.
    - `branches`: closed jaxprs without constants; before they are traced, functions.
    - `left_out`: names of functions that are no branch here, and the reasons.
    - `planned`: of each branch, the default first, if they run by plans.
    """

    of: str
    names: tuple[str, ...]
    branches: tuple[Any, ...]
    left_out: tuple[tuple[str, str], ...]
    planned: tuple[Planned, ...] = ()

    def each(self, change: Callable[[Any], Any], of: str = "") -> Choice:
        """The choice with each branch changed, but those that cannot be."""
        names, branches = [self.names[0]], [change(self.branches[0])]
        left_out = list(self.left_out)
        for name, branch in zip(self.names[1:], self.branches[1:], strict=True):
            try:
                branches.append(change(branch))
                names.append(name)
            except NotImplementedError as error:
                said = str(error).strip().partition("\n")[0].rstrip(".")
                left_out.append((name, said or "it is not implemented here"))
        return Choice(of or self.of, tuple(names), tuple(branches), tuple(left_out))

    def bind(self, *operands: Any) -> list[Any]:
        """Adds the equation to the current trace."""
        return _variants_p.bind(*operands, **vars(self))

    def instead_of(self, eqn: jex_core.JaxprEqn) -> jex_core.JaxprEqn:
        """The equation, run by the default or another branch."""
        return eqn.replace(primitive=_variants_p, params=dict(vars(self)))


@_variants_p.def_impl
def _run_default(*operands: Any, branches: tuple[Any, ...], **_: Any) -> list[Any]:
    return jex_core.jaxpr_as_fun(branches[0])(*operands)


@_variants_p.def_abstract_eval
def _results(*_: Any, branches: tuple[Any, ...], **__: Any) -> list[Any]:
    return list(branches[0].out_avals)


def _batch(
    operands: Sequence[Any], dims: Sequence[int | None], **params: Any
) -> tuple[list[Any], list[int]]:
    pairs = list(zip(operands, dims, strict=True))
    moved = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in pairs]
    axes = [None if d is None else 0 for d in dims]

    def batched(branch: Any) -> Any:
        function = jax.vmap(jex_core.jaxpr_as_fun(branch), in_axes=axes)
        return jax.make_jaxpr(function)(*moved)

    results = Choice(**params).each(batched).bind(*moved)
    return results, [0] * len(results)


mlir.register_lowering(_variants_p, mlir.lower_fun(_run_default, multiple_results=True))
batching.primitive_batchers[_variants_p] = _batch


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["operands"], meta_fields=["wanted"]
)
@dataclasses.dataclass(frozen=True)
class _Saved:
    """What the backward pass keeps: `wanted` are the operands with a gradient."""

    operands: tuple[Any, ...]
    wanted: tuple[int, ...]


def _differentiable(choice: Choice) -> Callable[..., tuple[Any, ...]]:
    @jax.custom_vjp
    def run(*operands: Any) -> tuple[Any, ...]:
        return tuple(choice.bind(*operands))

    def forward(*operands: Any) -> tuple[tuple[Any, ...], _Saved]:
        values = tuple(o.value for o in operands)
        wanted = tuple(
            n for n, o in enumerate(operands) if o.perturbed and _is_real(o.value)
        )
        return run(*values), _Saved(values, wanted)

    def backward(saved: _Saved, cotangents: Sequence[Any]) -> tuple[Any, ...]:
        given = {
            n: c
            for n, c in enumerate(cotangents)
            if not isinstance(c, SymbolicZero) and _is_real(c)
        }
        gradients: list[Any] = [None] * len(saved.operands)
        if saved.wanted and given:
            operands = (*saved.operands, *given.values())
            places = len(saved.operands), saved.wanted, tuple(given)
            choice_of_gradients = choice.each(
                lambda branch: _gradient(branch, *places).trace(*operands).jaxpr,
                f"gradient of {choice.of}",
            )
            found = _differentiable(choice_of_gradients)(*operands)
            for n, gradient in zip(saved.wanted, found, strict=True):
                gradients[n] = gradient
        return tuple(gradients)

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run


def _is_real(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


# Equal calls have one and the same branch, which is differentiated once.
@functools.lru_cache(maxsize=256)
def _gradient(
    branch: Any, count: int, wanted: tuple[int, ...], given: tuple[int, ...]
) -> Any:
    """The jitted function from `count` operands and the cotangents to gradients."""

    def gradient(*operands: Any) -> Any:
        inputs = list(operands[:count])

        def forward(*chosen: Any) -> list[Any]:
            for n, x in zip(wanted, chosen, strict=True):
                inputs[n] = x
            results = jex_core.jaxpr_as_fun(branch)(*inputs)
            return [results[n] for n in given]

        _, pull = jax.vjp(forward, *(inputs[n] for n in wanted))
        return pull(list(operands[count:]))

    return jax.jit(gradient)


@dataclasses.dataclass(frozen=True)
class _Traced:
    """A function as a jaxpr, what it closes over, and the tree of its results."""

    closed: Any
    constants: tuple[Any, ...]
    tree: Any


class _Function:
    """A function of the user's, traced once for arguments of the same types."""

    def __init__(self, function: Callable[..., Any]):
        def strong(*args: Any, **kwargs: Any) -> Any:
            return jax.tree.map(_strong, function(*args, **kwargs))

        self._function, self._strong = function, strong
        self._jitted = jax.jit(strong)

    def trace(self, args: Any, kwargs: Any) -> _Traced:
        traced = self._jitted.trace(*args, **kwargs)
        closed = traced.jaxpr
        if len(closed.jaxpr.invars) > len(jax.tree.leaves((args, kwargs))):
            # It closes over what is being traced, and that is not said by `jit`.
            closed = jax.make_jaxpr(self._strong)(*args, **kwargs)
        if closed.effects:
            raise VariantError(
                f"The variant {_name_of(self._function)!r} has effects "
                f"({', '.join(sorted(map(str, closed.effects)))}). What another "
                "function may stand in for has none: take them out of it."
            )
        _, constants = compat.constants_of(closed)
        return _Traced(closed, tuple(constants), jax.tree.structure(traced.out_info))


def _strong(x: Any) -> Any:
    # Whether a type is weak is nothing that functions have to agree about.
    is_weak = getattr(jax.typeof(x), "weak_type", False)
    return jax.lax.convert_element_type(x, jnp.result_type(x)) if is_weak else x


def _with_constants(traced: _Traced, keys: list[int], operands: Sequence[Any]) -> Any:
    """The jaxpr of a function that takes the constants of all as first operands."""
    places = [keys.index(id(c)) for c in traced.constants]

    def flat(*operands: Any) -> list[Any]:
        own = [operands[n] for n in places]
        return eval_jaxpr(traced.closed.jaxpr, own, *operands[len(keys) :])

    return jax.make_jaxpr(flat)(*operands) if keys else traced.closed


def _check_names(names: tuple[str, ...], count: int) -> None:
    if len(names) != count:
        raise VariantError(
            f"There are {count} variants and names for {len(names)} of them: "
            f"{', '.join(map(repr, names))}. Give a name for each, the default first."
        )
    for name in names:
        if names.count(name) > 1:
            raise VariantError(
                f"Two variants are called {name!r}, and reports could not tell them "
                "apart. Give a name for each, the default first: names=(...)."
            )


def _check_results(traced: Choice) -> None:
    first, *others = traced.branches
    default = traced.names[0]
    for name, other in zip(traced.names[1:], others, strict=True):
        if other.tree != first.tree:
            raise VariantError(
                f"The variant {name!r} returns {other.tree}, {default!r} returns "
                f"{first.tree}. Variants compute the same: return the same tree."
            )
        for number, (wanted, found) in enumerate(_pairs(first, other)):
            if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
                raise VariantError(
                    f"The variant {name!r} returns {found.str_short()} as result "
                    f"{number}, {default!r} returns {wanted.str_short()}. Variants "
                    "compute the same: return the same shapes and dtypes."
                )


def _pairs(first: _Traced, other: _Traced) -> Iterator[tuple[Any, Any]]:
    return zip(first.closed.out_avals, other.closed.out_avals, strict=True)


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
