import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.trace.variants import VARIANTS

from .steps import assert_close


X = jax.random.normal(jax.random.key(0), (5, 4))
W = jax.random.normal(jax.random.key(1), (4, 7))


def at_once(x: Any, w: Any) -> Any:
    """Results of two dtypes, in a dictionary."""
    scores = x @ w
    return {"norm": jax.nn.logsumexp(scores, -1), "best": jnp.argmax(scores, -1)}


def by_rows(x: Any, w: Any) -> Any:
    """The same, a row at a time."""
    return jax.lax.map(lambda row: at_once(row, w), x)


BOTH = autotm.variants(at_once, by_rows)


def loss(function: Callable[..., Any]) -> Callable[..., Any]:
    """A scalar to differentiate."""
    return lambda x, w: (function(x, w)["norm"] ** 2).sum()


def equations_of(function: Callable[..., Any], *args: Any) -> list[Any]:
    """The equations with variants in a function."""

    def walk(jaxpr: Any) -> list[Any]:
        found = []
        for eqn in jaxpr.eqns:
            found += [eqn] if eqn.primitive.name == VARIANTS else []
            for inner in jax.extend.core.jaxprs_in_params(eqn.params):
                found += walk(inner)
        return found

    return walk(jax.make_jaxpr(function)(*args).jaxpr)


def run_by(branch: int, eqn: Any) -> Callable[..., list[Any]]:
    """A branch of an equation as a function."""
    return jax.extend.core.jaxpr_as_fun(eqn.params["branches"][branch])


def _without_jit(function: Callable[..., Any], *args: Any) -> Any:
    with jax.disable_jit():
        return function(*args)


TRANSFORMS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "grad": lambda f: jax.grad(loss(f), (0, 1)),
    "jit of grad": lambda f: jax.jit(jax.grad(loss(f), (0, 1))),
    "grad of checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)), (0, 1)),
    "second derivative": lambda f: jax.jacrev(jax.grad(loss(f))),
    "vmap": lambda f: (
        lambda x, w: jax.vmap(f, in_axes=(None, 1))(x, jnp.stack([w, 2 * w], 1))
    ),
    "vmap of grad": lambda f: (
        lambda x, w: jax.vmap(jax.grad(loss(f), (0, 1)), (0, None))(
            jnp.stack([x, -x]), w
        )
    ),
    "grad of vmap": lambda f: jax.grad(
        lambda x, w: jax.vmap(loss(f), (0, None))(jnp.stack([x, -x]), w).sum()
    ),
    "grad in scan": lambda f: (
        lambda x, w: jax.lax.scan(
            lambda c, _: (c - jax.grad(loss(f))(c, w), None), x, None, length=2
        )[0]
    ),
    "without jit": lambda f: lambda x, w: _without_jit(jax.grad(loss(f)), x, w),
    "keywords": lambda f: lambda x, w: f(w=w, x=x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_it_is_the_default(name: str):
    transform = TRANSFORMS[name]
    assert_close(transform(BOTH)(X, W), transform(at_once)(X, W), 1e-6)


def test_equal_calls_are_traced_and_differentiated_once():
    seen: list[Any] = []

    def counted(x: Any, w: Any) -> Any:
        seen.append(x)
        return at_once(x, w)

    both = autotm.variants(counted, by_rows)

    def step(x: Any, w: Any) -> Any:
        return jax.grad(lambda w: loss(both)(x, w) + loss(both)(2 * x, w))(w)

    equations = equations_of(step, X, W)
    assert len(equations) == 4
    assert len(seen) == 1
    branches = {id(b) for e in equations for b in e.params["branches"]}
    assert len(branches) == 4  # two functions, and the gradients of both


def test_shapes_without_arrays():
    assert jax.eval_shape(BOTH, X, W) == jax.eval_shape(at_once, X, W)
    assert BOTH.__name__ == "at_once"
    assert BOTH.__doc__ == at_once.__doc__


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        lambda f: jax.grad(loss(f), (0, 1)),
        lambda f: lambda x, w: jax.vmap(f, (0, None))(x[:, None], w),
        lambda f: lambda x, w: jax.vmap(jax.grad(loss(f)), (0, None))(x[:, None], w),
    ],
)
def test_every_branch_computes_the_same(transform: Any):
    eqn = equations_of(transform(BOTH), X, W)[-1]
    assert eqn.params["names"] == ("at_once", "by_rows")
    keys = jax.random.split(jax.random.key(3), len(eqn.invars))
    operands = [
        jax.random.normal(k, v.aval.shape)
        for k, v in zip(keys, eqn.invars, strict=True)
    ]
    first, second = (run_by(n, eqn)(*operands) for n in (0, 1))
    assert_close(second, first, 1e-6)


def test_the_backward_pass_is_an_equation_of_its_own():
    forward, backward = equations_of(jax.grad(loss(BOTH)), X, W)
    assert forward.params["of"] == "at_once"
    assert backward.params["of"] == "gradient of at_once"
    # The operands and one cotangent: nothing else is kept. One gradient is wanted.
    assert len(backward.invars) == 3
    assert [v.aval.shape for v in backward.outvars] == [X.shape]


def test_integers_and_what_is_static():
    def look_up(scale: float, table: Any, at: Any) -> Any:
        return scale * table[at]

    def compare(scale: float, table: Any, at: Any) -> Any:
        return scale * (jax.nn.one_hot(at, table.shape[0]) @ table)

    at = jnp.array([3, 0, 3])
    options = [functools.partial(f, 2.0) for f in (look_up, compare)]
    both = autotm.variants(*options)
    found = jax.grad(lambda w: both(w, at).sum())(W)
    assert_close(found, jax.grad(lambda w: options[0](w, at).sum())(W))
    (forward, _) = equations_of(jax.grad(lambda w: both(w, at).sum()), W)
    assert forward.params["names"] == ("look_up", "compare")


def test_functions_may_close_over_what_is_differentiated():
    def total(x: Any, scale: Any) -> Any:
        w = scale * W
        both = autotm.variants(
            lambda x: x @ w,
            lambda x: jax.lax.map(lambda row: row @ w, x),
            names=("at once", "by rows"),
            of="product",
        )
        return both(x).sum()

    for function in (total, jax.jit(total)):
        found = jax.grad(function, (0, 1))(X, 2.0)
        assert_close(
            found, jax.grad(lambda x, s: (x @ (s * W)).sum(), (0, 1))(X, 2.0), 1e-6
        )
    _, backward = equations_of(jax.grad(total, (0, 1)), X, 2.0)
    assert backward.params["of"] == "gradient of product"


def test_what_is_not_implemented_is_left_out():
    def nowhere(x: Any, w: Any) -> Any:
        raise NotImplementedError("It needs another machine.\nSee its manual.")

    def silent(x: Any, w: Any) -> Any:
        raise NotImplementedError

    some = autotm.variants(at_once, nowhere, by_rows, silent)
    (eqn,) = equations_of(some, X, W)
    assert eqn.params["names"] == ("at_once", "by_rows")
    assert eqn.params["left_out"] == (
        ("nowhere", "It needs another machine"),
        ("silent", "it is not implemented here"),
    )
    with pytest.raises(NotImplementedError, match="another machine"):
        autotm.variants(nowhere, at_once)(X, W)


def test_a_function_without_a_derivative_runs_forward_only():
    opaque = jax.extend.core.Primitive("opaque")
    opaque.def_abstract_eval(lambda x: x)
    jax.interpreters.mlir.register_lowering(
        opaque, jax.interpreters.mlir.lower_fun(jnp.sin, multiple_results=False)
    )
    some = autotm.variants(jnp.sin, opaque.bind, names=("sin", "opaque"))
    forward, backward = equations_of(jax.grad(lambda x: some(x).sum()), X)
    assert forward.params["names"] == ("sin", "opaque")
    assert backward.params["names"] == ("sin",)
    ((name, reason),) = backward.params["left_out"]
    assert name == "opaque"
    assert "opaque" in reason


def test_weak_types_make_no_difference():
    both = autotm.variants(
        lambda x: x.sum() * 0 + 1.0, lambda x: 1.0, names=("strong", "weak")
    )
    assert float(both(X)) == 1.0


def raised(*functions: Any, names: Any = None) -> str:
    """The message of the error that a call of variants ends with."""
    with pytest.raises(autotm.VariantError) as caught:
        autotm.variants(*functions, names=names)(X, W)
    return str(caught.value)


def test_results_have_to_be_alike():
    def product(x: Any, w: Any) -> Any:
        return x @ w

    def transposed(x: Any, w: Any) -> Any:
        return (x @ w).T

    def half(x: Any, w: Any) -> Any:
        return (x @ w).astype(jnp.bfloat16)

    assert raised(product, transposed) == (
        "The variant 'transposed' returns float32[7,5] as result 0, 'product' returns "
        "float32[5,7]. Variants compute the same: return the same shapes and dtypes."
    )
    assert raised(product, half, names=("full", "half")) == (
        "The variant 'half' returns bfloat16[5,7] as result 0, 'full' returns "
        "float32[5,7]. Variants compute the same: return the same shapes and dtypes."
    )
    assert raised(product, lambda x, w: (x @ w,)) == (
        "The variant '<lambda>' returns PyTreeDef((*,)), 'product' returns "
        "PyTreeDef(*). Variants compute the same: return the same tree."
    )


def test_names_tell_variants_apart():
    assert raised(at_once, at_once) == (
        "Two variants are called 'at_once', and reports could not tell them apart. "
        "Give a name for each, the default first: names=(...)."
    )
    assert raised(at_once, by_rows, names=("a",)) == (
        "There are 2 variants and names for 1 of them: 'a'. Give a name for each, the "
        "default first."
    )


def test_effects_are_refused():
    def telling(x: Any, w: Any) -> Any:
        jax.debug.print("{}", x[0, 0])
        return at_once(x, w)

    message = raised(at_once, telling)
    assert message.startswith("The variant 'telling' has effects (")
    assert message.endswith(
        "What another function may stand in for has none: take them out of it."
    )
