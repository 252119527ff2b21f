from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from autotm_jax.profile import alone
from autotm_jax.profile.alone import Measurement, measure_alone, random_inputs
from autotm_jax.profile.configurations import configurations
from autotm_jax.profile.timing import ClockError, Protocol

from .programs import program_of
from .steps import chain, chain_arguments


QUICK = Protocol(warm_up=1, fewest=3, most=3, sample_seconds=0.0)


def only(step: Any, *args: Any) -> Measurement:
    """The measurement of a step's first segment."""
    program = program_of(step, *args)
    return measure_alone(program, program.segments[0].body, protocol=QUICK)


def test_every_configuration_is_timed():
    program = program_of(chain, *chain_arguments(layers=3))
    body = program.segments[1].body
    kept = configurations(program, body, 8).kept
    assert len(kept) > 2
    for configuration in kept:
        found = measure_alone(program, body, configuration, QUICK)
        assert found.failure is None
        assert found.timing is not None and found.timing.seconds > 0


def test_effects_are_not_repeated():
    seen: list[Any] = []

    def step(x: Any) -> Any:
        jax.debug.callback(seen.append, x[0, 0])
        return x @ x

    found = only(step, jnp.ones((8, 8)))
    assert found == Measurement(None, "it has an effect, which may not happen again")
    assert seen == []


def test_loops_of_unknown_length_are_not_run():
    def grow(x: Any, rate: Any) -> Any:
        return jax.lax.while_loop(lambda x: x.max() < 1e3, lambda x: x * rate, x)

    def nested(x: Any, rate: Any) -> Any:
        return jax.lax.cond(x[0, 0] > 0, grow, lambda x, rate: x, x, rate)

    for step in (grow, nested):
        found = only(step, jnp.ones((8, 8)), jnp.float32(1.5))
        assert found == Measurement(None, "it has a loop of unknown length")


def test_foreign_kernels_are_not_run():
    def step(x: Any) -> Any:
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.ffi.ffi_call("no_such_target", shape)(x)

    found = only(step, jnp.ones((8, 8)))
    assert found == Measurement(None, "it has a kernel that may not take any input")


def test_nan_is_told():
    found = only(lambda x: jnp.log(x @ x - 1e6), jnp.ones((8, 8)))
    assert found == Measurement(None, "it returned NaN for random inputs")


@pytest.mark.parametrize(
    ("where", "error", "reason"),
    [
        (
            "evaluate",
            ValueError("no such target: custom_call\nand more"),
            "it cannot run alone (ValueError: no such target: custom_call)",
        ),
        (
            "measure",
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes."),
            "it does not fit into memory alone",
        ),
        (
            "measure",
            ClockError("The clock did not advance in 31 samples."),
            "The clock did not advance in 31 samples",
        ),
    ],
)
def test_whatever_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, reason: str
):
    def fail(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(alone, where, fail)
    assert only(lambda x: x @ x, jnp.ones((8, 8))) == Measurement(None, reason)


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alone, "free_bytes", lambda device: 1000)
    found = only(lambda x: x @ x, jnp.ones((8, 8)))
    assert found == Measurement(None, "it does not fit into memory alone")


def test_small_inputs_rotate_and_large_ones_do_not(monkeypatch: pytest.MonkeyPatch):
    sets: list[int] = []

    def count(run: Any, inputs: Any, protocol: Any) -> Any:
        sets.append(len(inputs))

    monkeypatch.setattr(alone, "measure", count)
    only(lambda x: x @ x, jnp.ones((8, 8)))
    monkeypatch.setattr(alone, "_ROTATED_BYTES", 256)
    only(lambda x: x @ x, jnp.ones((8, 8)))
    assert sets == [8, 1]


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint32", "float32", "bfloat16", "float8_e4m3fn", "complex64"],
)
def test_random_inputs(dtype: str):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    aval = jax.ShapeDtypeStruct((64, 3), jnp.dtype(dtype))
    (one,), (other,) = (random_inputs([aval], [place], seed) for seed in (0, 1))
    assert one.shape == aval.shape and one.dtype == aval.dtype
    assert bool((one != other).any())
    if jnp.issubdtype(aval.dtype, jnp.floating):
        wide = one.astype(jnp.float32)
        assert 0.2 < float(wide.min()) and float(wide.max()) < 0.8
    elif jnp.issubdtype(aval.dtype, jnp.integer):
        assert int(one.min()) >= 0 and int(one.max()) < 128


def test_random_keys_and_scalars():
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3))
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    keys, one = random_inputs([key, scalar], [place, place], 0)
    assert keys.shape == (3,) and keys.dtype == key.dtype
    assert one.shape == ()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_keys_of_every_kind(impl: str):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    aval = jax.eval_shape(lambda: jax.random.key(0, impl=impl))
    (key,) = random_inputs([aval], [place], 0)
    assert key.dtype == aval.dtype and key.shape == ()


def test_free_memory_that_nobody_knows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alone, "free_bytes", lambda device: float("inf"))
    assert only(lambda x: x @ x, jnp.ones((8, 8))).failure is None


def test_free_memory():
    stats = {"bytes_limit": 100, "bytes_in_use": 30}
    assert alone.free_bytes(SimpleNamespace(memory_stats=lambda: stats)) == 70
    assert alone.free_bytes(jax.devices()[0]) > 2**20
