"""Parts of models that come in several variants, for a plan to choose from.

Under `jax.jit` each is the first of its variants, plain `jax.numpy`.

!!! Example

    ```python
    from autotm_jax import kernels

    x = x + kernels.attention(q, k, v, causal=True)
    ...
    return kernels.cross_entropy(hidden, params["output"], labels)
    ```
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import source_info_util

from .trace import variants


# The source line of what is called here is that of the call.
source_info_util.register_exclusion(__file__)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    chunks: Sequence[int] = (4, 16),
) -> jax.Array:
    """Attention: at once, in chunks of the batch, or by cuDNN.

    At once, the scores of all sequences are in memory together; in chunks, those of a
    part of the batch; with cuDNN, none are. cuDNN is a variant where JAX runs on a GPU
    that has it and takes the shapes and dtypes, bfloat16 or float16. The softmax is
    taken in float32.

    **Arguments:**

    - `q`, `k`, `v`: queries, keys and values, `(batch, length, heads, size)`. As for
        `jax.nn.dot_product_attention`, keys and values may have fewer heads.
    - `mask`: true where a query sees a key: booleans of four dimensions that broadcast
        to `(batch, heads, queries, keys)`.
    - `causal`: whether a position sees only itself and those before it.
    - `scale`: of the scores; by default one over the square root of the size.
    - `chunks`: numbers of chunks that the batch may be cut into.

    **Returns:**

    An array like `q`.

    **Raises:**

    - `ValueError`: for arrays of other than four dimensions.
    """
    if q.ndim != 4:
        raise ValueError(
            f"The queries are {jax.typeof(q).str_short()}. Attention takes arrays of "
            "(batch, length, heads, size)."
        )
    return _attention_variants(causal, scale, tuple(chunks))(q, k, v, mask)


def cross_entropy(
    hidden: jax.Array,
    weights: jax.Array,
    labels: jax.Array,
    *,
    chunks: Sequence[int] = (4, 16),
) -> jax.Array:
    """The mean cross-entropy of a linear layer: at once, or in chunks of its rows.

    At once, the logits of all rows are in memory together; in chunks, those of a part
    of them, forward and backward. The softmax is taken in float32, and so is the sum of
    the chunks' gradients of the weights.

    **Arguments:**

    - `hidden`: what the layer reads, `(..., width)`.
    - `weights`: of the layer, `(width, classes)`.
    - `labels`: the class of each row, `(...)`, integers.
    - `chunks`: numbers of chunks that the rows may be cut into.

    **Returns:**

    A float32 scalar.

    **Raises:**

    - `ValueError`: if labels and rows are not as many.
    """
    if labels.shape != hidden.shape[:-1]:
        raise ValueError(
            f"The labels are {jax.typeof(labels).str_short()} and what the layer reads "
            f"is {jax.typeof(hidden).str_short()}. Give one label for each row of it."
        )
    losses = _losses_variants(tuple(chunks))
    rows = hidden.reshape(-1, hidden.shape[-1])
    return losses(weights, rows, labels.reshape(-1)).mean()


# The same functions at each call are traced once.
@functools.lru_cache(maxsize=64)
def _attention_variants(
    causal: bool, scale: float | None, chunks: tuple[int, ...]
) -> Callable[..., jax.Array]:
    options = {"causal": causal, "scale": scale}
    functions = [
        functools.partial(_attention, **options),
        *(functools.partial(_attention_in_chunks, n, **options) for n in chunks),
        functools.partial(_attention_by_cudnn, **options),
    ]
    names = ["at once", *(f"in {n} chunks" for n in chunks), "cuDNN"]
    return variants(*functions, names=names, of="attention")


@functools.lru_cache(maxsize=64)
def _losses_variants(chunks: tuple[int, ...]) -> Callable[..., jax.Array]:
    functions = [
        _losses,
        *(functools.partial(_losses_in_chunks, n) for n in chunks),
    ]
    names = ["at once", *(f"in {n} chunks" for n in chunks)]
    return variants(*functions, names=names, of="cross_entropy")


def _attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    causal: bool,
    scale: float | None,
    implementation: Any = "xla",
) -> jax.Array:
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=mask,
        is_causal=causal,
        scale=scale,
        implementation=implementation,
    )


def _attention_in_chunks(
    chunks: int,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    causal: bool,
    scale: float | None,
) -> jax.Array:
    def some(_: None, qkv: Any, mask: Any) -> jax.Array:
        q, k, v = qkv
        return _attention(q, k, v, mask, causal, scale)

    if mask is not None:
        mask = jnp.broadcast_to(mask, (q.shape[0], *mask.shape[1:]))
    return _in_chunks(some, chunks, None, (q, k, v), mask)


def _attention_by_cudnn(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, **options: Any
) -> jax.Array:
    if jax.default_backend() != "gpu":
        raise NotImplementedError(f"JAX runs on a {jax.default_backend()} here")
    try:
        return _attention(q, k, v, mask, **options, implementation="cudnn")
    except RuntimeError as error:  # it is not installed
        raise NotImplementedError(str(error)) from error


def _losses(weights: jax.Array, rows: jax.Array, labels: jax.Array) -> jax.Array:
    logits = (rows @ weights).astype(jnp.float32)
    # Compared with each class, not looked up: no gradient is scattered into zeros.
    is_label = labels[:, None] == jnp.arange(logits.shape[-1], dtype=labels.dtype)
    chosen = jnp.where(is_label, logits, 0).sum(-1)
    return jax.nn.logsumexp(logits, -1) - chosen


def _losses_in_chunks(
    chunks: int, weights: jax.Array, rows: jax.Array, labels: jax.Array
) -> jax.Array:
    return _in_chunks(_losses, chunks, weights, rows, labels)


def _in_chunks(
    function: Callable[[Any, Any, Any], jax.Array],
    chunks: int,
    shared: Any,
    rows: Any,
    fixed: Any,
) -> jax.Array:
    """A function of rows, of a part of them at a time, forward and backward.

    `fixed` is cut as `rows` are, and has no gradient; `shared` is not cut.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if count < chunks:
        raise NotImplementedError(f"there are {count} rows for {chunks} chunks")
    # The last chunk is filled up with zeros, whose results are dropped.
    length = -(-count // chunks)

    def cut(x: jax.Array) -> jax.Array:
        filled = jnp.pad(x, [(0, chunks * length - count)] + [(0, 0)] * (x.ndim - 1))
        return filled.reshape(chunks, length, *x.shape[1:])

    cut_rows, cut_fixed = jax.tree.map(cut, rows), jax.tree.map(cut, fixed)
    out: Any = _one_by_one(function, shared, cut_rows, cut_fixed)
    return out.reshape(-1, *out.shape[2:])[:count]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _one_by_one(function: Any, shared: Any, chunks: Any, fixed: Any) -> jax.Array:
    return lax.map(lambda x: function(shared, *x), (chunks, fixed))


def _forward(function: Any, shared: Any, chunks: Any, fixed: Any) -> Any:
    return _one_by_one(function, shared, chunks, fixed), (shared, chunks, fixed)


def _backward(function: Any, saved: Any, cotangents: jax.Array) -> Any:
    shared, chunks, fixed = saved

    def one(total: Any, x: Any) -> tuple[Any, Any]:
        chunk, fixed, cotangent = x
        _, pull = jax.vjp(lambda s, c: function(s, c, fixed), shared, chunk)
        more, gradient = pull(cotangent)
        return jax.tree.map(lambda t, m: t + m.astype(t.dtype), total, more), gradient

    def zeros(x: jax.Array) -> jax.Array:
        return jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))

    zero = jax.tree.map(zeros, shared)
    total, gradients = lax.scan(one, zero, (chunks, fixed, cotangents))
    total = jax.tree.map(lambda t, s: t.astype(s.dtype), total, shared)
    return total, gradients, None


_one_by_one.defvjp(_forward, _backward)
