"""The arguments of a step: which are selected by options, and where they are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Sharding

from .devices import is_on_mesh, replicated
from .given import GivenShardings
from .machine import Target
from .residence import abstract_at, as_on_device, settled


Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def selected(
    fun: Callable[..., Any],
    options: Mapping[str, Any],
    numbers: str,
    names: str,
    count: int,
) -> set[int | str]:
    """Positions and names that two options of `jax.jit` select.

    As in JAX, a parameter selected by position is also selected by name and the other
    way round, where the signature tells.

    **Arguments:**

    - `fun`: the function that is jitted.
    - `options`: what was given to `jax.jit`.
    - `numbers`, `names`: two of them, as `"donate_argnums"` and `"donate_argnames"`.
    - `count`: how many arguments are given by position.

    **Returns:**

    Positions and names.
    """

    def said(key: str) -> tuple[Any, ...]:
        value = options.get(key)
        if value is None:
            return ()
        return (value,) if isinstance(value, (int, str)) else tuple(value)

    out: set[int | str] = {n % count for n in said(numbers) if count}
    out |= set(said(names))
    try:
        parameters = list(inspect.signature(fun).parameters)
    except (TypeError, ValueError):  # a callable that has no signature
        return out
    for position, name in enumerate(parameters):
        if position in out or name in out:
            out |= {position, name}
    return out


class Arguments:
    """The arguments of the calls of one step.

    **Arguments:**

    - `fun`, `options`: the step, and what was given to `jax.jit` for it.
    - `shardings`: what those say of where arguments are; `None` if that is all up to
        `jax.jit`.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        options: Mapping[str, Any],
        shardings: GivenShardings | None,
    ):
        self._fun, self._options, self._shardings = fun, options, shardings

    def static(self, count: int) -> set[int | str]:
        """Positions and names of what is no array, of `count` given by position."""
        names = "static_argnums", "static_argnames"
        return selected(self._fun, self._options, *names, count)

    def donated(self, count: int) -> set[int | str]:
        """Positions and names of what the step may overwrite."""
        names = "donate_argnums", "donate_argnames"
        return selected(self._fun, self._options, *names, count)

    def on(self, target: Target, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """The arguments of a call, abstract for a target that is absent."""
        on_mesh = is_on_mesh(args, kwargs, self._options)
        place = functools.partial(target.place, on_mesh=on_mesh)
        static = self.static(len(args))
        args = tuple(a if n in static else place(a) for n, a in enumerate(args))
        return args, {k: v if k in static else place(v) for k, v in kwargs.items()}

    def on_device(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """What is donated and in host memory: abstract, as if it were on the device."""
        return _mapped(as_on_device, args, kwargs, self.donated(len(args)))

    def described(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """The arguments as they are traced: where they will be when the step runs."""
        if self._shardings:
            args = self._changed(self._shardings.described, args)
        place = self._everywhere(args, kwargs)
        if place is None:
            return args, kwargs
        there = functools.partial(as_if_committed, place=place)
        return _mapped(there, args, kwargs, self.donated(len(args)))

    def are_placed(self, args: Args) -> bool:
        """Whether all arguments are where the user has said."""
        return not self._shardings or self._shardings.hold(self._arrays(args))

    def put(self, args: Args, on_host: Collection[int]) -> Args:
        """The arguments where the user has said, those leaves on the host."""
        if not self._shardings:
            return args
        put = functools.partial(self._shardings.arguments, on_host=on_host)
        return self._changed(put, args)

    def settled(
        self,
        args: Args,
        kwargs: Kwargs,
        state: Collection[int],
        on_host: Collection[int],
    ) -> tuple[Args, Kwargs]:
        """As `residence.settled`; what is not committed is put on every device."""
        place = replicated(args, kwargs, self._options)
        return settled(args, kwargs, self.static(len(args)), state, on_host, place)

    def committed(self, args: Args, kwargs: Kwargs, moves: bool) -> tuple[Args, Kwargs]:
        """The arguments, with what is donated committed to where it is.

        A jitted function that moves arrays between memories (`moves`), or runs on a
        mesh, returns committed ones, so the state of the second call is committed. JAX
        compiles a function anew for that: that of the first call is committed, too.
        """
        place = self._everywhere(args, kwargs)
        if not moves and place is None:
            return args, kwargs
        commit = functools.partial(committed, place=place)
        return _mapped(commit, args, kwargs, self.donated(len(args)))

    def _everywhere(self, args: Args, kwargs: Kwargs) -> Sharding | None:
        # With shardings of the user's, arguments of which they say nothing, too, are
        # where JAX puts them.
        is_said = self._options.get("in_shardings") is not None
        return None if is_said else replicated(args, kwargs, self._options)

    def _arrays(self, args: Args) -> Args:
        static = self.static(len(args))
        return tuple(a for n, a in enumerate(args) if n not in static)

    def _changed(self, change: Callable[[Args], Args], args: Args) -> Args:
        # Those that are arrays.
        static = self.static(len(args))
        each = iter(change(self._arrays(args)))
        return tuple(a if n in static else next(each) for n, a in enumerate(args))


def _mapped(
    change: Callable[[Any], Any],
    args: Args,
    kwargs: Kwargs,
    chosen: Collection[int | str],
) -> tuple[Args, Kwargs]:
    # The arguments, with the leaves of those that are chosen changed.
    def now(key: int | str, argument: Any) -> Any:
        return jax.tree.map(change, argument) if key in chosen else argument

    given = tuple(now(n, argument) for n, argument in enumerate(args))
    return given, {name: now(name, argument) for name, argument in kwargs.items()}


def committed(leaf: Any, place: Sharding | None = None) -> Any:
    """An array that is committed, as what a step on several devices returns is.

    **Arguments:**

    - `leaf`: of an argument.
    - `place`: where it is put if it is not committed; `None`: where it is.

    **Returns:**

    The array; what is no array as it is.
    """
    if isinstance(leaf, np.ndarray):
        leaf = jax.device_put(leaf, place)
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return as_if_committed(leaf, place)
    if _is_free(leaf):
        return jax.device_put(leaf, place or leaf.sharding)
    return leaf


def as_if_committed(leaf: Any, place: Sharding | None) -> Any:
    """An abstract value of what `committed` returns; what is committed as it is."""
    if place is None or not (_is_free(leaf) or isinstance(leaf, np.ndarray)):
        return leaf
    return abstract_at(leaf, place)


def _is_free(leaf: Any) -> bool:
    # Not yet anywhere, or where JAX may take it from.
    if isinstance(leaf, Tracer):
        return False
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf.sharding is None
    return isinstance(leaf, jax.Array) and not leaf.committed
