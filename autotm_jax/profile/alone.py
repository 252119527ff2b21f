"""A fragment compiled and timed alone, on the device that is here."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from .. import compat
from ..compile.memory import temp_bytes
from ..compile.options import compiler_options
from ..machine import machine_of
from ..trace import Fragment, Program, evaluate
from .configurations import ON_DEVICE, Configuration
from .timing import ClockError, Protocol, Timing, measure


# Input sets rotate until they take this many bytes, more than any cache holds.
_ROTATED_BYTES = 2**27
_MOST_SETS = 8

# What a measurement may take of the memory that is free.
_SHARE_OF_FREE = 0.5

# What calls code that is not XLA's, which may trust its inputs.
_FOREIGN = {"custom_call", "ffi_call", "pallas_call", "triton_kernel_call"}

RETURNED_NAN = "it returned NaN for random inputs"
CANNOT_RUN = "it cannot run alone"

# Distinct random bytes per input; larger ones repeat them.
_RANDOM_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A timing, or why there is none (a sentence without its full stop)."""

    timing: Timing | None
    failure: str | None = None


def measure_alone(
    program: Program,
    fragment: Fragment,
    configuration: Configuration = ON_DEVICE,
    protocol: Protocol | None = None,
) -> Measurement:
    """Compiles and times a fragment on the default device.

    **Arguments:**

    - `program`, `fragment`: what runs.
    - `configuration`: which operands and results are in host memory.
    - `protocol`: the rules of the measurement.

    **Returns:**

    A `Measurement`. Whatever goes wrong is its `failure`, never an exception.
    """
    eqns = [program.equations[i].eqn for i in fragment.equations]
    if any(compat.has_effects(eqn) for eqn in eqns):
        return Measurement(None, "it has an effect, which may not happen again")
    names = set().union(*map(_primitives, eqns))
    if "while" in names:
        return Measurement(None, "it has a loop of unknown length")
    if not names.isdisjoint(_FOREIGN):
        return Measurement(None, "it has a kernel that may not take any input")
    try:
        return _measured(program, fragment, configuration, protocol)
    except ClockError as error:
        return Measurement(None, str(error).rstrip("."))
    except Exception as error:  # noqa: BLE001 - whatever JAX raises is a finding
        return Measurement(None, _reason(error))


def _primitives(eqn: Any) -> set[str]:
    inner = [e for jaxpr in jaxprs_in_params(eqn.params) for e in jaxpr.eqns]
    return {eqn.primitive.name}.union(*map(_primitives, inner))


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    first = text[0] if text else "no message"
    if "RESOURCE_EXHAUSTED" in first or isinstance(error, MemoryError):
        return "it does not fit into memory alone"
    return f"{CANNOT_RUN} ({type(error).__name__}: {first[:200]})"


def _measured(
    program: Program,
    fragment: Fragment,
    configuration: Configuration,
    protocol: Protocol | None,
) -> Measurement:
    device = jax.local_devices()[0]
    on_host = {fragment.reads[i] for i in configuration.reads}
    to_host = {fragment.writes[i] for i in configuration.writes}

    def run(*arrays: Any) -> list[Any]:
        env = dict(zip(fragment.reads, arrays, strict=True))
        for value in on_host:
            env[value] = jax.device_put(env[value], jax.memory.Space.Device)
        out = evaluate(program, fragment, env.__getitem__)
        return [
            jax.device_put(out[v], jax.memory.Space.Host) if v in to_host else out[v]
            for v in fragment.writes
        ]

    here = jax.sharding.SingleDeviceSharding(device)
    away = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
    places = [away if v in on_host else here for v in fragment.reads]
    avals = [program.values[v].aval for v in fragment.reads]
    shapes = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=p)
        for a, p in zip(avals, places, strict=True)
    ]
    lowered = jax.jit(run).lower(*shapes)
    compiled = lowered.compile(compiler_options(machine_of(device).platform))
    given = sum(program.values[v].nbytes for v in fragment.reads)
    made = sum(program.values[v].nbytes for v in fragment.writes)
    room = _SHARE_OF_FREE * free_bytes(device) - made - temp_bytes(compiled)
    if given > room:
        return Measurement(None, "it does not fit into memory alone")
    wanted = math.ceil(_ROTATED_BYTES / max(1, given))
    sets = max(1, int(min(wanted, _MOST_SETS, room / max(1, given))))
    inputs = [random_inputs(avals, places, seed) for seed in range(sets)]
    if _has_nan(compiled(*inputs[0])):
        return Measurement(None, RETURNED_NAN)
    return Measurement(measure(compiled, inputs, protocol))


def free_bytes(device: Any) -> float:
    """Bytes that are free on a device, or in this machine if it does not say."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return math.inf


def random_inputs(avals: Sequence[Any], places: Sequence[Any], seed: int) -> list[Any]:
    """Random arrays: floats in [0.25, 0.75], integers in [0, 128), any bool and key.

    In that range roots, logarithms and quotients are finite, and an integer is an
    index that most tables have.

    **Arguments:**

    - `avals`: shapes and dtypes.
    - `places`: a sharding for each.
    - `seed`: of the random numbers.

    **Returns:**

    The arrays, committed to their places.
    """
    rng = np.random.default_rng(seed)
    return [
        jax.device_put(_random(rng, aval), place)
        for aval, place in zip(avals, places, strict=True)
    ]


def _random(rng: np.random.Generator, aval: Any) -> Any:
    if compat.is_key_type(aval):
        size = int(np.prod(aval.shape, dtype=np.int64))
        seed = int(rng.integers(2**31))
        key = jax.random.key(seed, impl=compat.key_implementation(aval))
        return jax.random.split(key, size).reshape(aval.shape)
    bits = compat.itemsize_bits(aval.dtype)
    count = max(1, min(aval.size, 8 * _RANDOM_BYTES // bits))
    if jnp.issubdtype(aval.dtype, jnp.bool_):
        block = rng.integers(0, 2, count)
    elif jnp.issubdtype(aval.dtype, jnp.integer):
        block = rng.integers(0, min(128, jnp.iinfo(aval.dtype).max + 1), count)
    else:
        block = rng.uniform(0.25, 0.75, count)
    return np.resize(block.astype(aval.dtype), aval.shape)


def _has_nan(results: Sequence[Any]) -> bool:
    floats = [
        r
        for r in results
        if not compat.is_key_type(r) and jnp.issubdtype(r.dtype, jnp.inexact)
    ]
    near = jax.device_put(floats, jax.memory.Space.Device)
    return any(bool(jax.device_get(jnp.isnan(r).any())) for r in near)
