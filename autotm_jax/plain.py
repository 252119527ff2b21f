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

    - `compile`: compiles the step and returns its device bytes. It is told whether the
        step may well be run like that, or only its bytes are wanted.
    - `target`: what for.
    - `step`: whatever tells it from other steps: its jaxpr, what is donated, where its
        arguments are, the options of its jit.
    """

    def __init__(self, compile: Callable[[bool], int], target: Target, *step: object):
        self._compile, self._target, self._step = compile, target, step
        self._nbytes: int | None = None

    @functools.cached_property
    def _key(self) -> str:
        device = self._target.config or jax.local_devices()[0].device_kind
        platform, uses_triton = self._target.machine.platform, self._target.uses_triton
        options = compiler_options(platform, False, uses_triton)
        versions = (compat.JAX_VERSION, compat.JAXLIB_VERSION)
        flags = os.environ.get("XLA_FLAGS", "")
        return cache.cache_key(*self._step, device, options, *versions, flags)

    @property
    def known(self) -> int | None:
        """The bytes, if they have been seen before."""
        if self._nbytes is None:
            entry = cache.load("plain", self._key)
            self._nbytes = entry if isinstance(entry, int) else None
        return self._nbytes

    @property
    def nbytes(self) -> int:
        """The bytes; compiles the step unless they have been seen before."""
        return self._seen(to_run=False)

    def to_run(self) -> int:
        """The bytes; if it has to be compiled for them, it is as it would be run."""
        return self._seen(to_run=True)

    def _seen(self, to_run: bool) -> int:
        if self.known is None:
            self._nbytes = self._compile(to_run)
            cache.store("plain", self._key, self._nbytes)
        assert self._nbytes is not None
        return self._nbytes
