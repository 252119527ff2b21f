"""What plain `jax.jit` needs for a step: compiled once, then kept in the cache."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import jax

from . import compat
from .compile import compiler_options
from .machine import Target
from .profile import cache


class Plain:
    """The device bytes of an untouched step.

    **Arguments:**

    - `compile`: compiles the step and returns its device bytes.
    - `target`: what for.
    - `step`: whatever tells it from other steps: its jaxpr, what is donated, where its
        arguments are, the options of its jit.
    """

    def __init__(self, compile: Callable[[], int], target: Target, *step: object):
        self._compile, self._target, self._step = compile, target, step

    @functools.cached_property
    def _key(self) -> str:
        device = self._target.config or jax.local_devices()[0].device_kind
        options = compiler_options(self._target.machine.platform)
        versions = (compat.JAX_VERSION, compat.JAXLIB_VERSION)
        flags = os.environ.get("XLA_FLAGS", "")
        return cache.cache_key(*self._step, device, options, *versions, flags)

    @functools.cached_property
    def known(self) -> int | None:
        """The bytes, if they have been seen before."""
        entry = cache.load("plain", self._key)
        return entry if isinstance(entry, int) else None

    @functools.cached_property
    def nbytes(self) -> int:
        """The bytes; compiles the step unless they have been seen before."""
        if self.known is not None:
            return self.known
        nbytes = self._compile()
        cache.store("plain", self._key, nbytes)
        return nbytes
