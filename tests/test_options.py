import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import compat
from autotm_jax.compile import compile_not_to_run, compiler_options

from .compiling import needs_cuda_plugin


def disabled(platform: str) -> list[str]:
    """The passes of XLA that a planned step is compiled without."""
    options: dict[str, Any] = compiler_options(platform)
    return options["xla_disable_hlo_passes"].split(",")


@pytest.mark.parametrize("is_wrong", [False, True])
def test_where_slices_of_host_stacks_are_wrong_a_pass_is_disabled(
    is_wrong: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compat, "READS_WRONG_SLICES", is_wrong)
    wanted = ["rematerialization", *["dynamic-slice-annotator"] * is_wrong]
    assert disabled("cuda") == wanted
    # Nothing is read from a host there.
    assert "dynamic-slice-annotator" not in disabled("cpu")


def test_barriers_of_small_loops_stay_out_of_kernels():
    assert disabled("cpu") == ["cse_barrier_expander", "small-while-loop-hoisting"]


@needs_cuda_plugin
def test_as_many_copies_at_a_time_as_were_planned():
    # Eight stores may take until the last of eight products.
    space = jax.memory.Space.Host

    def step(x: Any, w: Any) -> Any:
        hosts = []
        for _ in range(8):
            hosts.append(jax.device_put(x, space))
            x = jax.lax.optimization_barrier(jnp.tanh(x @ w))
        return jax.lax.optimization_barrier((x, *hosts))

    sharding = autotm.target("h100-sxm").sharding
    x = jax.ShapeDtypeStruct((2048, 2048), jnp.float32, sharding=sharding)
    lowered = jax.jit(step).lower(x, x)

    def most(options: dict[str, Any]) -> int:
        """The largest number of copies that run at the same time."""
        running = [0]
        for line in lowered.compile(options).as_text().splitlines():
            started, done = " copy-start(" in line, " copy-done(" in line
            running.append(running[-1] + started - done)
        return max(running)

    assert most({}) == 2
    assert most(compiler_options("cuda")) == 8


@needs_cuda_plugin
def test_a_copy_begins_where_it_was_planned_to():
    # Beside a product that XLA divides along what it contracts, too.
    host, device = jax.memory.Space.Host, jax.memory.Space.Device

    def step(x: Any, w: Any, tall: Any) -> Any:
        away = jax.device_put(x, host)
        for _ in range(4):
            w, away = jax.lax.optimization_barrier((jnp.tanh(w @ w), away))
        back = jax.device_put(away, device)
        for _ in range(4):
            w = jax.lax.optimization_barrier(jnp.tanh(w @ w))
        w, tall = jax.lax.optimization_barrier((w, tall))
        w, back = jax.lax.optimization_barrier((w + tall.T @ tall, back))
        return back @ w

    sharding = autotm.target("h100-sxm").sharding
    shapes = (2048, 1024), (1024, 1024), (65536, 1024)
    args = [jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=sharding) for s in shapes]
    lowered = jax.jit(step).lower(*args)

    def beside(options: dict[str, Any]) -> int:
        """How many products run beside the copy to the device."""
        text = lowered.compile(options).as_text()
        text = text[text.index("\nENTRY") :]
        names = re.findall(r"%gemm\S* = |copy-start\(|copy-done\(", text)
        start = len(names) - names[::-1].index("copy-start(")
        return names[start:].index("copy-done(")

    without = compiler_options("cuda", moves=False)
    assert beside(without) < beside(compiler_options("cuda")) == 5


def test_nothing_is_said_to_other_platforms():
    assert compiler_options("tpu") == {}


def test_without_the_options_that_an_xla_does_not_know(monkeypatch: pytest.MonkeyPatch):
    unknown = {"xla_no_such_option": True}
    monkeypatch.setattr("autotm_jax.compile.options._NOT_TO_RUN", unknown)
    lowered = jax.jit(jnp.sin).lower(1.0)
    compiled = compile_not_to_run(lowered)
    assert float(compiled(0.0)) == 0.0
    # What was asked for is not left out.
    with pytest.raises(Exception, match="No such compile option: 'xla_no_such_option'"):
        compile_not_to_run(lowered, unknown)
