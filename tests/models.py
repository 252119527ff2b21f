"""Training steps as people write them, of models that nothing was tuned to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a model and its batch are."""

    layers: int = 2
    width: int = 32
    length: int = 16
    batch: int = 4


Made = tuple[Callable[[Any, Any], Any], Any, Any]
"""A step, its state and a batch."""

MODELS: dict[str, Callable[[Sizes], Made]] = {}
"""By name, what makes a step, its state and a batch."""

WORDS = 64


def _register(make: Callable[[Sizes], Made]) -> Callable[[Sizes], Made]:
    MODELS[make.__name__] = make
    return make


def _drawn(seed: int, shapes: Any) -> Any:
    """A tree of weights, given a tree of shapes."""
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda s: isinstance(s, tuple))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    drawn = [jax.random.normal(k, s) / max(1, s[0]) ** 0.5 for k, s in pairs]
    return tree.unflatten(drawn)


def _words(seed: int, *shape: int) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), shape, 0, WORDS)


def _loss_of(logits: jax.Array, words: jax.Array) -> jax.Array:
    logits = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, words).mean()


def _normed(x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
    return (wide * scale).astype(x.dtype)


def _block(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    width = sizes.width
    shapes = {"qkv": (width, 3 * width), "out": (width, width)}
    return shapes | {"up": (width, 4 * width), "down": (4 * width, width)}


def _attended(x: jax.Array, w: Any) -> jax.Array:
    """Attention of four heads, with a residual."""
    heads = (*x.shape[:2], 4, -1)
    parts = jnp.split(_normed(x) @ w["qkv"], 3, -1)
    q, k, v = (part.reshape(heads) for part in parts)
    found = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return x + found.reshape(x.shape) @ w["out"]


def _layer(x: jax.Array, w: Any) -> jax.Array:
    x = _attended(x, w)
    return x + jax.nn.gelu(_normed(x) @ w["up"]) @ w["down"]


def _halved(tree: Any) -> Any:
    return jax.tree.map(lambda w: w.astype(jnp.bfloat16), tree)


def _language_model(params: Any, words: jax.Array) -> jax.Array:
    half = _halved(params)
    x = half["words"][words]
    for w in half["layers"]:
        x = _layer(x, w)
    return _loss_of(x @ half["words"].T, words)


def _language_weights(sizes: Sizes) -> Any:
    layers = [_block(sizes)] * sizes.layers
    return _drawn(0, {"words": (WORDS, sizes.width), "layers": layers})


def _updated(optimizer: Any, params: Any, state: Any, grads: Any) -> Any:
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def _training(optimizer: Any, loss: Callable[[Any, Any], Any]) -> Any:
    """A step that does nothing but what all do."""

    def step(state: Any, batch: Any) -> Any:
        params, rest = state
        value, grads = jax.value_and_grad(loss)(params, batch)
        return _updated(optimizer, params, rest, grads), value

    return step


@_register
def accumulated_gradients(sizes: Sizes) -> Made:
    """Gradients of four batches are added up in a loop, and clipped."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))

    def step(state: Any, batches: Any) -> Any:
        params, rest = state

        def add(total: Any, words: Any) -> Any:
            found = jax.value_and_grad(_language_model)(params, words)
            return jax.tree.map(jnp.add, total, found), None

        start = 0.0, jax.tree.map(jnp.zeros_like, params)
        (loss, grads), _ = jax.lax.scan(add, start, batches)
        return _updated(optimizer, params, rest, grads), loss

    params = _language_weights(sizes)
    batches = _words(1, 4, sizes.batch, sizes.length)
    return step, (params, optimizer.init(params)), batches


@_register
def scaled_loss(sizes: Sizes) -> Made:
    """A loss that is scaled, and a step that is left out where a gradient overflows."""
    optimizer = optax.adam(1e-3)

    def step(state: Any, words: Any) -> Any:
        params, rest, scale = state

        def loss(params: Any) -> Any:
            return scale * _language_model(params, words)

        value, grads = jax.value_and_grad(loss)(params)
        grads = jax.tree.map(lambda g: g / scale, grads)
        is_finite = jnp.isfinite(optax.tree.norm(grads))
        params, rest = jax.lax.cond(
            is_finite,
            lambda: _updated(optimizer, params, rest, grads),
            lambda: (params, rest),
        )
        return (params, rest, jnp.where(is_finite, scale, scale / 2)), value / scale

    params = _language_weights(sizes)
    state = params, optimizer.init(params), jnp.float32(128.0)
    return step, state, _words(1, sizes.batch, sizes.length)


@_register
def adapters(sizes: Sizes) -> Made:
    """Only matrices of low rank beside frozen ones are trained."""
    optimizer = optax.adamw(1e-2)
    frozen = _halved(_language_weights(sizes))

    def loss(low: Any, batch: Any) -> Any:
        frozen, words = batch
        x = frozen["words"][words]
        for w, (a, b) in zip(frozen["layers"], _halved(low), strict=True):
            x = _layer(x, w | {"qkv": w["qkv"] + a @ b})
        return _loss_of(x @ frozen["words"].T, words)

    low = _drawn(3, [[(sizes.width, 4), (4, 3 * sizes.width)]] * sizes.layers)
    words = _words(1, sizes.batch, sizes.length)
    return _training(optimizer, loss), (low, optimizer.init(low)), (frozen, words)


@_register
def experts(sizes: Sizes) -> Made:
    """Each word goes to the better two of four experts, by products with one-hots."""
    optimizer, count = optax.sgd(0.1), 4

    def routed(x: jax.Array, w: Any) -> jax.Array:
        flat = _normed(x).reshape(-1, x.shape[-1])
        room = 2 * flat.shape[0] // count
        scores, chosen = jax.lax.top_k(jax.nn.softmax(flat @ w["gate"]), 2)
        goes = jax.nn.one_hot(chosen, count).reshape(-1, count)
        place = ((jnp.cumsum(goes, 0) - goes) * goes).sum(-1).reshape(chosen.shape)
        goes = goes.reshape(*chosen.shape, count)
        seats = goes[..., None] * jax.nn.one_hot(place.astype(int), room)[:, :, None]
        given = jnp.einsum("nkec,nd->ecd", seats, flat)
        made = jnp.einsum("ecf,efd->ecd", jax.nn.silu(given @ w["up"]), w["down"])
        back = jnp.einsum("nkec,nk,ecd->nd", seats, scores, made)
        return x + back.reshape(x.shape)

    def loss(params: Any, words: Any) -> Any:
        x = params["words"][words]
        for w in params["layers"]:
            x = routed(_attended(x, w), w)
        return _loss_of(x @ params["words"].T, words)

    width = sizes.width
    of_experts = {"up": (count, width, 2 * width), "down": (count, 2 * width, width)}
    layer = _block(sizes) | of_experts | {"gate": (width, count)}
    params = _drawn(0, {"words": (WORDS, width), "layers": [layer] * sizes.layers})
    words = _words(1, sizes.batch, sizes.length)
    return _training(optimizer, loss), (params, optimizer.init(params)), words


@_register
def channels_first(sizes: Sizes) -> Made:
    """A residual network on images whose channels come first, with batch norm."""
    optimizer = optax.sgd(0.1, momentum=0.9)

    def normed(x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        mean = wide.mean((0, 2, 3), keepdims=True)
        scale = jax.lax.rsqrt(wide.var((0, 2, 3), keepdims=True) + 1e-5)
        return ((wide - mean) * scale).astype(x.dtype)

    def loss(params: Any, batch: Any) -> Any:
        half, (images, labels) = _halved(params), batch
        x = jax.lax.conv(_halved(images), half["stem"], (1, 1), "SAME")
        for first, second in half["layers"]:
            y = jax.lax.conv(jax.nn.relu(normed(x)), first, (1, 1), "SAME")
            x = x + jax.lax.conv(jax.nn.relu(normed(y)), second, (1, 1), "SAME")
        return _loss_of(x.mean((2, 3)) @ half["head"], labels)

    width, side = sizes.width, sizes.length
    kernel = (width, width, 3, 3)
    shapes = {"stem": (width, 3, 3, 3), "layers": [[kernel] * 2] * sizes.layers}
    params = _drawn(0, shapes | {"head": (width, WORDS)})
    images = jax.random.normal(jax.random.key(1), (sizes.batch, 3, side, side))
    return (
        _training(optimizer, loss),
        (params, optimizer.init(params)),
        (images, _words(2, sizes.batch)),
    )


@_register
def graph(sizes: Sizes) -> Made:
    """Messages along the edges of a graph, added up at its nodes."""
    optimizer = optax.adam(1e-3)
    nodes, edges = sizes.batch * sizes.length, 4 * sizes.batch * sizes.length

    def loss(params: Any, batch: Any) -> Any:
        features, ends, labels = batch
        x = features
        for message, update in params["layers"]:
            pairs = jnp.concatenate([x[ends[0]], x[ends[1]]], -1)
            come = jax.ops.segment_sum(jax.nn.relu(pairs @ message), ends[1], nodes)
            x = _normed(x + jax.nn.relu(jnp.concatenate([x, come], -1) @ update))
        return _loss_of(x @ params["head"], labels)

    width = sizes.width
    layers = [[(2 * width, width)] * 2] * sizes.layers
    params = _drawn(0, {"layers": layers, "head": (width, WORDS)})
    features = jax.random.normal(jax.random.key(1), (nodes, width))
    ends = jax.random.randint(jax.random.key(2), (2, edges), 0, nodes)
    batch = features, ends, _words(3, nodes)
    return _training(optimizer, loss), (params, optimizer.init(params)), batch


@_register
def recurrent(sizes: Sizes) -> Made:
    """Layers of long short-term memory, each a loop over all words."""
    optimizer = optax.adam(1e-3)

    def recalled(x: jax.Array, w: Any) -> jax.Array:
        def cell(state: Any, given: Any) -> Any:
            hidden, memory = state
            i, f, o, new = jnp.split(given + hidden @ w["hidden"], 4, -1)
            memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(new)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(memory)
            return (hidden, memory), hidden

        nothing = jnp.zeros(x.shape[1:], x.dtype)
        return jax.lax.scan(cell, (nothing, nothing), x @ w["given"])[1]

    def loss(params: Any, words: Any) -> Any:
        half = _halved(params)
        x = half["words"][words.T]
        for w in half["layers"]:
            x = recalled(x, w)
        return _loss_of(x @ half["words"].T, words.T)

    width = sizes.width
    layer = {"given": (width, 4 * width), "hidden": (width, 4 * width)}
    params = _drawn(0, {"words": (WORDS, width), "layers": [layer] * sizes.layers})
    words = _words(1, sizes.batch, sizes.length)
    return _training(optimizer, loss), (params, optimizer.init(params)), words


@_register
def rays(sizes: Sizes) -> Made:
    """A field that is asked along rays, of a few large layers."""
    optimizer = optax.adam(1e-3)

    def colour(params: Any, origin: Any, towards: Any, depths: Any) -> Any:
        x = origin + depths[:, None] * towards
        x = jnp.concatenate([jnp.sin(2.0**k * x) for k in range(6)], -1)
        for w in params["layers"]:
            x = jax.nn.relu(x @ w)
        seen = x @ params["out"]
        passes = jnp.exp(-jax.nn.softplus(seen[:, 0]) / depths.size)
        weight = jnp.cumprod(passes) * (1 - passes)
        return weight @ jax.nn.sigmoid(seen[:, 1:])

    def loss(params: Any, batch: Any) -> Any:
        *given, wanted = batch
        found = jax.vmap(colour, (None, 0, 0, 0))(params, *given)
        return jnp.mean((found - wanted) ** 2)

    width, count = sizes.width, sizes.batch * sizes.length
    layers = [(18, width), *[(width, width)] * (2 * sizes.layers)]
    params = _drawn(0, {"layers": layers, "out": (width, 4)})
    shapes = [(count, 3), (count, 3), (count, 16), (count, 3)]
    return (
        _training(optimizer, loss),
        (params, optimizer.init(params)),
        tuple(_drawn(1, shapes)),
    )
