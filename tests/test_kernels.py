import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax import kernels

from .steps import assert_close
from .test_variants import equations_of, run_by


KEYS = jax.random.split(jax.random.key(11), 4)


def plain_attention(
    q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False, scale: Any = None
) -> Any:
    """The formula."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale
    seen = jnp.ones(scores.shape[-2:], bool)
    if causal:
        seen = jnp.tril(seen)
    if mask is not None:
        seen = seen & mask
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), -1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def plain_cross_entropy(hidden: Any, weights: Any, labels: Any) -> Any:
    """The formula."""
    probabilities = jax.nn.log_softmax(hidden @ weights, -1)
    return -jnp.take_along_axis(probabilities, labels[..., None], -1).mean()


def qkv(batch: int = 6, length: int = 5, heads: int = 4, few: int = 4) -> list[Any]:
    """Queries, keys and values."""
    shapes = [(batch, length, h, 8) for h in (heads, few, few)]
    return [jax.random.normal(k, s) for k, s in zip(KEYS[:3], shapes, strict=True)]


MASK = jax.random.bernoulli(KEYS[3], 0.7, (6, 1, 5, 5)).at[..., 0].set(True)

ATTENTION: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "plain": (qkv(), {}),
    "causal": (qkv(), {"causal": True}),
    "scaled": (qkv(), {"scale": 0.3}),
    "masked": ([*qkv(), MASK], {}),
    "one mask for all": ([*qkv(), MASK[:1]], {"causal": True}),
    "few keys": (qkv(few=2), {"causal": True}),
}


@pytest.mark.parametrize("case", ATTENTION)
@pytest.mark.parametrize("chunks", [(), (2, 4)])
def test_attention(case: str, chunks: tuple[int, ...]):
    operands, options = ATTENTION[case]
    attend = functools.partial(kernels.attention, chunks=chunks, **options)
    plain = functools.partial(plain_attention, **options)
    assert_close(attend(*operands), plain(*operands))

    def gradients(function: Any) -> Any:
        return jax.grad(lambda *a: (function(*a) ** 2).sum(), (0, 1, 2))

    assert_close(gradients(attend)(*operands), gradients(plain)(*operands))
    for eqn in equations_of(gradients(attend), *operands):
        assert len(eqn.params["branches"]) == 1 + len(chunks)
        ran = [_random(v.aval, n) for n, v in enumerate(eqn.invars)]
        wanted = run_by(0, eqn)(*ran)
        for branch in range(1, 1 + len(chunks)):
            assert_close(run_by(branch, eqn)(*ran), wanted)


def _random(aval: Any, seed: int) -> Any:
    key = jax.random.key(seed)
    if aval.dtype == jnp.bool_:
        return jax.random.bernoulli(key, 0.7, aval.shape).at[..., 0].set(True)
    if jnp.issubdtype(aval.dtype, jnp.integer):
        return jax.random.randint(key, aval.shape, 0, 7)
    return jax.random.normal(key, aval.shape, aval.dtype)


@pytest.mark.parametrize("shape", [(12,), (3, 4), (13,)])
def test_cross_entropy(shape: tuple[int, ...]):
    hidden = jax.random.normal(KEYS[0], (*shape, 8))
    weights = jax.random.normal(KEYS[1], (8, 7))
    labels = jax.random.randint(KEYS[2], shape, 0, 7)
    entropy = functools.partial(kernels.cross_entropy, chunks=(2, 5))
    operands = hidden, weights, labels
    assert_close(entropy(*operands), plain_cross_entropy(*operands))
    found = jax.grad(entropy, (0, 1))(*operands)
    assert_close(found, jax.grad(plain_cross_entropy, (0, 1))(*operands))
    equations = equations_of(jax.grad(entropy, (0, 1)), *operands)
    assert [e.params["of"] for e in equations] == [
        "cross_entropy",
        "gradient of cross_entropy",
    ]
    for eqn in equations:
        assert eqn.params["names"] == ("at once", "in 2 chunks", "in 5 chunks")
        ran = [_random(v.aval, n) for n, v in enumerate(eqn.invars)]
        for branch in (1, 2):
            assert_close(run_by(branch, eqn)(*ran), run_by(0, eqn)(*ran))


def test_gradients_of_chunks_are_added_in_float32():
    hidden = jax.random.normal(KEYS[0], (256, 16), jnp.bfloat16)
    weights = jax.random.normal(KEYS[1], (16, 32), jnp.bfloat16)
    labels = jax.random.randint(KEYS[2], (256,), 0, 32)

    def weights_gradient(function: Any, dtype: Any) -> Any:
        args = hidden.astype(dtype), weights.astype(dtype), labels
        return jax.grad(function, 1)(*args).astype(jnp.float32)

    exact = weights_gradient(plain_cross_entropy, jnp.float32)
    entropy = functools.partial(kernels.cross_entropy, chunks=(64,))
    _, eqn = equations_of(jax.grad(entropy, 1), hidden, weights, labels)
    cotangents = jnp.full(256, 1 / 256, jnp.float32)
    by_chunks = run_by(1, eqn)(weights, hidden, labels, cotangents)[0]
    error = jnp.abs(by_chunks.astype(jnp.float32) - exact).max()
    assert error <= 0.02 * jnp.abs(exact).max()


def test_too_few_rows_for_the_chunks():
    def left_out(function: Any, *operands: Any) -> dict[str, str]:
        (eqn,) = equations_of(function, *operands)
        return dict(eqn.params["left_out"])

    assert left_out(kernels.attention, *qkv()) == {
        "in 16 chunks": "there are 6 rows for 16 chunks",
        "cuDNN": "JAX runs on a cpu here",
    }
    operands = jnp.ones((3, 2)), jnp.ones((2, 4)), jnp.zeros(3, jnp.int32)
    assert left_out(kernels.cross_entropy, *operands) == {
        "in 4 chunks": "there are 3 rows for 4 chunks",
        "in 16 chunks": "there are 3 rows for 16 chunks",
    }


def test_cudnn_is_offered_where_jax_has_it(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def attention(q: Any, k: Any, v: Any, implementation: str, **options: Any) -> Any:
        asked.append((implementation, options))
        if implementation == "cudnn" and q.dtype == jnp.float32:
            raise NotImplementedError("Q must be fp16/bf16, got float32")
        if implementation == "cudnn" and q.dtype == jnp.float16:
            raise RuntimeError("cuDNN is not detected.")
        return q + k + v

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)

    def params(dtype: Any) -> Any:
        operands = [x.astype(dtype) for x in qkv()]
        # A scale of its own: what is traced here is kept for calls that are equal.
        attend = functools.partial(kernels.attention, chunks=(), scale=0.125)
        (eqn,) = equations_of(attend, *operands)
        return eqn.params

    found = params(jnp.bfloat16)
    assert (found["names"], found["left_out"]) == (("at once", "cuDNN"), ())
    assert asked[-1] == ("cudnn", {"mask": None, "is_causal": False, "scale": 0.125})
    assert params(jnp.float32)["left_out"] == (
        ("cuDNN", "Q must be fp16/bf16, got float32"),
    )
    assert params(jnp.float16)["left_out"] == (("cuDNN", "cuDNN is not detected"),)


def test_what_is_no_attention():
    q, k, v = qkv()
    with pytest.raises(ValueError) as caught:
        kernels.attention(q[0], k[0], v[0])
    assert str(caught.value) == (
        "The queries are float32[5,4,8]. Attention takes arrays of (batch, length, "
        "heads, size)."
    )


def test_a_label_for_each_row():
    with pytest.raises(ValueError) as caught:
        kernels.cross_entropy(jnp.ones((4, 2)), jnp.ones((2, 3)), jnp.zeros(3, int))
    assert str(caught.value) == (
        "The labels are int32[3] and what the layer reads is float32[4,2]. Give one "
        "label for each row of it."
    )
