from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.compile import temp_bytes


def compiled(**fields: int) -> Any:
    """Looks like an executable with these fields of a memory analysis."""
    stats = SimpleNamespace(**{f"{k}_size_in_bytes": v for k, v in fields.items()})
    return SimpleNamespace(memory_analysis=lambda: stats)


def test_the_sums():
    executable = compiled(
        argument=1000,
        output=500,
        alias=300,
        temp=70,
        generated_code=9,
        host_argument=11,
        host_output=7,
        host_alias=3,
        host_temp=2,
    )
    assert autotm.device_bytes(executable) == 1000 + 500 - 300 + 70
    assert autotm.host_bytes(executable) == 11 + 7 - 3 + 2
    assert temp_bytes(executable) == 70


def test_missing_fields_are_zero():
    assert autotm.host_bytes(compiled(argument=5)) == 0
    assert autotm.device_bytes(compiled(argument=5)) == 5


def test_a_backend_that_says_nothing():
    silent: Any = SimpleNamespace(memory_analysis=lambda: None)
    text = (
        "This backend does not report the memory of an executable, so a budget cannot "
        "be checked on it."
    )
    with pytest.raises(RuntimeError, match=text):
        autotm.device_bytes(silent)


def test_a_real_executable():
    step = jax.jit(lambda x: (x @ x) @ x, donate_argnums=0)
    real = step.lower(jnp.ones((64, 64))).compile()
    stats = real.memory_analysis()
    assert autotm.device_bytes(real) == (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
    )
    assert autotm.host_bytes(real) == 0
    assert stats.alias_size_in_bytes == 64 * 64 * 4
