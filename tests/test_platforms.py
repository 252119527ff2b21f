"""What a step does on one platform is all that is planned of it."""

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.trace import Order, build_program
from autotm_jax.trace.flatten import flatten

from .compiling import needs_cuda_plugin


def step(x: jax.Array) -> jax.Array:
    x = jnp.sin(x)
    return jax.lax.platform_dependent(
        x, cpu=lambda x: x @ x, cuda=jnp.tanh, default=lambda x: x @ (x + 1)
    )


def primitives(platform: str | None, fun=step) -> list[str]:
    traced = jax.jit(fun).trace(jnp.ones((4, 4)))
    flat = flatten(traced.jaxpr, platform=platform)
    return [e.eqn.primitive.name for e in flat.equations]


@pytest.mark.parametrize(
    "platform, wanted",
    [
        ("cpu", ["sin", "dot_general"]),
        ("cuda", ["sin", "tanh"]),
        ("rocm", ["sin", "add", "dot_general"]),
        (None, ["sin", "platform_index", "cond"]),
    ],
)
def test_only_what_runs_on_the_platform_is_written_out(platform, wanted):
    assert primitives(platform) == wanted


def test_a_call_in_between_changes_nothing():
    assert primitives("cuda", lambda x: jax.jit(step)(x) + 1) == ["sin", "tanh", "add"]


def test_no_branch_for_a_platform_is_for_jax_to_say():
    def only(x):
        return jax.lax.platform_dependent(x, tpu=jnp.sin, rocm=jnp.cos)

    assert primitives("cuda", only) == ["platform_index", "cond"]


def test_branches_of_variants_are_of_that_platform_too():
    twice = autotm.variants(step, lambda x: step(x) + 0)
    traced = jax.jit(twice).trace(jnp.ones((4, 4)))
    program = build_program(traced.jaxpr, [False], Order.AS_TRACED, platform="cuda")
    (segment,) = program.segments
    (other,) = segment.body.branches
    for fragment in (segment.body, other.fragment):
        names = [program.equations[i].eqn.primitive.name for i in fragment.equations]
        assert "tanh" in names and "cond" not in names


def test_other_conditionals_stay():
    def chosen(x):
        return jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x)

    assert primitives("cuda", chosen)[-1] == "cond"


def test_what_only_other_platforms_keep_for_the_gradient_is_not_kept():
    # What the branches keep differs, so that each says what the others would.
    def loss(x):
        return jnp.log(jnp.diagonal(x)).sum()

    kept = primitives("cuda", jax.grad(loss))
    assert "cond" not in kept and "scatter-add" in kept
    assert kept.count("mul") == 0


def test_a_device_that_is_here_is_lowered_for_as_it_is_asked():
    # Where arguments are, or for another platform: what runs is not settled before.
    def train(weights, x):
        def loss(weights):
            y = x
            for w in weights:
                y = step(y @ w)
            return y.sum()

        return [w - g for w, g in zip(weights, jax.grad(loss)(weights), strict=True)]

    weights = [jax.random.normal(jax.random.key(i), (64, 64)) / 64 for i in range(4)]
    x = jax.random.normal(jax.random.key(9), (64, 64)) / 64
    assert autotm.target().platform is None
    jitted = autotm.jit(train, budget="min")
    for found, wanted in zip(
        jitted(weights, x), jax.jit(train)(weights, x), strict=True
    ):
        assert jnp.allclose(found, wanted, rtol=1e-5)
    plan = jitted.plan(weights, x)
    assert not plan.is_untouched and plan.program is not None
    assert "cond" in {e.eqn.primitive.name for e in plan.program.equations}


@needs_cuda_plugin
def test_memory_is_that_of_what_runs():
    # A determinant by its Cholesky factor. What else its diagonal might be taken by
    # would have a matrix of zeros made early.
    def loss(weights, x):
        for w in weights:
            x = jnp.tanh(x @ w)
        kernel = x @ x.T + jnp.eye(len(x))
        return jnp.log(jnp.diagonal(jnp.linalg.cholesky(kernel))).sum()

    def train(weights, x):
        grads = jax.grad(loss)(weights, x)
        return [w - 1e-3 * g for w, g in zip(weights, grads, strict=True)]

    args = [jnp.ones((512, 512))] * 3, jnp.ones((1024, 512))
    jitted = autotm.jit(train, budget="min", target="h100-sxm", donate_argnums=0)
    plan = jitted.verify(*args)
    assert plan.realised is not None
    assert plan.device_bytes == pytest.approx(plan.realised.device_bytes, rel=0.03)
