import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autotm_jax as autotm
from autotm_jax.compile import (
    Uncoded,
    assign,
    assignment,
    compiler_options,
    device_bytes,
    host_bytes,
    temp_bytes,
)

from .compiling import needs_cuda_plugin


TABLE = np.arange(512 * 512, dtype=np.float32).reshape(512, 512)


def step(w: Any, x: Any) -> Any:
    """Donated, on the host and back, a constant, several results."""
    y = jnp.tanh(x @ w)
    away = jax.device_put(y, jax.memory.Space.Host)
    z = jnp.sin(y) @ w.T
    away, z = jax.lax.optimization_barrier((away, z))
    back = jax.device_put(away, jax.memory.Space.Device)
    host = jax.device_put(z[:256, :512], jax.memory.Space.Host)
    return w + 1, (z @ TABLE).sum(), back.sum(), host, jax.lax.top_k(x, 3)


def loop(w: Any, x: Any) -> Any:
    """A stack on the host, filled slice by slice, and read so."""
    stack = jax.lax.empty((4, 256, 512), jnp.float32)
    stack = jax.device_put(stack, jax.memory.Space.Host)

    def fill(i: Any, state: Any) -> Any:
        x, stack = state
        x = jnp.tanh(x @ w)
        away = jax.device_put(x[None], jax.memory.Space.Host)
        return x @ w, jax.lax.dynamic_update_slice(stack, away, (i, 0, 0))

    def read(i: Any, x: Any) -> Any:
        away = jax.lax.dynamic_slice(stack, (i, 0, 0), (1, 256, 512))[0]
        return (x + jax.device_put(away, jax.memory.Space.Device)) @ w

    x, stack = jax.lax.fori_loop(0, 4, fill, (x, stack))
    return jax.lax.fori_loop(0, 4, read, x)


def lowered(step: Callable[..., Any] = step, donated: Sequence[int] = (0,)) -> Any:
    sharding = autotm.target("h100-sxm").sharding
    w, x = (
        jax.ShapeDtypeStruct((rows, 512), jnp.float32, sharding=sharding)
        for rows in (512, 256)
    )
    return jax.jit(step, donate_argnums=donated).lower(w, x)


def instructions(text: str) -> list[str]:
    """Those of a text of HLO, with their operands."""
    return re.findall(r"^ *(?:ROOT )?(%\S+ = .*?\)), ", text, re.MULTILINE)


@needs_cuda_plugin
@pytest.mark.parametrize("is_present", [False, True])
def test_it_is_what_the_executable_has(is_present: bool):
    options = compiler_options("cuda")
    found = assign(lowered(), options, is_present)
    compiled = lowered().compile(options)
    assert device_bytes(found.executable) == device_bytes(compiled)
    assert temp_bytes(found.executable) == temp_bytes(compiled) > 0
    # One is a result, the other comes back.
    assert host_bytes(found.executable) == host_bytes(compiled) == 2 * 256 * 512 * 4
    assert found.lifetimes is not None

    ours = instructions(found.executable.as_text())
    assert ours and ours == instructions(compiled.as_text())


@needs_cuda_plugin
def test_copies_in_loops_are_those_of_the_executable():
    options = compiler_options("cuda")
    found = assign(lowered(loop, ()), options, is_present=False)
    compiled = lowered(loop, ()).compile(options)
    text = found.executable.as_text()
    assert "fusion-start(" in text or "slice-start(" in text
    assert instructions(text) == instructions(compiled.as_text())


@needs_cuda_plugin
def test_no_code_is_made_for_a_gpu_that_is_not_here():
    assert isinstance(assign(lowered(), is_present=False).executable, Uncoded)
    assert not isinstance(assign(lowered()).executable, Uncoded)


@needs_cuda_plugin
def test_where_xla_dumped_nothing_before_it_stopped_it_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
):
    def stop_at_once(*_: Any) -> None: ...

    monkeypatch.setattr(assignment, "_compile_until_assigned", stop_at_once)
    found = assign(lowered(), is_present=False).executable
    assert not isinstance(found, Uncoded)
    assert device_bytes(found) == device_bytes(lowered().compile())


@needs_cuda_plugin
@pytest.mark.parametrize(
    ("name", "unknown"),
    [("_STOPPING", "xla_no_such_stop"), ("_DUMPING", {"xla_no_such_form": True})],
)
def test_where_xla_does_not_know_how_to_stop_it_is_compiled(
    name: str, unknown: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(assignment, name, unknown)
    found = assign(lowered(), is_present=False).executable
    assert not isinstance(found, Uncoded)
    assert device_bytes(found) == device_bytes(lowered().compile())


@needs_cuda_plugin
def test_other_errors_are_not_taken_for_it():
    with pytest.raises(Exception, match="xla_no_such_option"):
        assign(lowered(), {"xla_no_such_option": True}, is_present=False)


def test_without_a_place_to_write_to_it_compiles_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    def refuse(**_: Any) -> Any:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    small = jax.jit(lambda x: (x @ x).sum()).lower(TABLE)
    found = assign(small)
    assert found.lifetimes is None
    assert device_bytes(found.executable) == device_bytes(small.compile())
