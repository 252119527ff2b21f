"""Plans of loops compiled for a GPU that is not here, and what executables show."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax import compat
from autotm_jax.candidate import Candidate
from autotm_jax.compile import compiler_options
from autotm_jax.compile.verify import Evidence, examine
from autotm_jax.emit import emit
from autotm_jax.solve import Schedule, packed_bytes, replay
from autotm_jax.trace import build_program

from .compiling import needs_cuda_plugin
from .loop_plans import ahead, at_once, crossing, in_the_iteration, moving
from .loop_steps import get, layer, mean_square


pytestmark = needs_cuda_plugin

LAYERS, ROWS, WIDTH = 6, 4096, 2048
ACTIVATION = 4 * ROWS * WIDTH
STACK = LAYERS * ACTIVATION


def training(ws: Any, x: Any) -> Any:
    """The value and the gradient of a scanned MLP."""

    def loss(ws: Any) -> Any:
        return mean_square(jax.lax.scan(layer, x, ws)[0])

    return jax.value_and_grad(loss)(ws)


@functools.cache
def candidate(parts: tuple[tuple[int, int], ...] = ()) -> Candidate:
    """The MLP, priced for an H100, with pairs of loops cut."""
    ws = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32)
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    return priced(training, (ws, x), dict(parts))


def priced(step: Any, args: Any, parts: Mapping[int, int] | None = None) -> Candidate:
    """A step, priced for an H100."""
    traced = jax.jit(step).trace(*args)
    flat = len(jax.tree.leaves(args))
    program = build_program(traced.jaxpr, [False] * flat, parts=parts)
    target = autotm.target("h100-sxm")
    return Candidate(program, target, 2**37, autotm.SolverOptions())


def compiled(of: Candidate, schedule: Schedule) -> tuple[Any, Evidence]:
    """An executable, and what it shows."""
    program, sharding = of.program, autotm.target("h100-sxm").sharding
    avals = [program.values[a].aval for a in program.arguments]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in avals]
    lowered = jax.jit(emit(program, schedule)).lower(*shapes)
    found = lowered.compile(compiler_options("cuda"))
    return found, examine(found, schedule, "cuda")


@functools.cache
def moved(way: Any) -> tuple[Schedule, Any, Evidence]:
    """The MLP with its residuals on the host, moved in one way; or with none moved."""
    schedule = Schedule() if way is None else moving(candidate().problem, way)
    return schedule, *compiled(candidate(), schedule)


def temporary(executable: Any) -> int:
    """Device bytes beside arguments and results."""
    return executable.memory_analysis().temp_size_in_bytes


WAYS = (at_once, in_the_iteration, ahead)


@pytest.mark.parametrize("way", WAYS)
def test_residuals_are_on_the_host(way: Any):
    schedule, executable, evidence = moved(way)
    assert evidence.faults == ()
    assert len(schedule.stores) == 2
    # The first layer's input and the products are kept for every layer.
    assert evidence.host_bytes == 2 * STACK
    assert replay(candidate().problem, schedule).host_peak == 2 * STACK
    saved = temporary(moved(None)[1]) - temporary(executable)
    # Instead of the stacks there is what is on its way: a slice of each, and with the
    # next ones under way, two.
    slices = 4 if way is ahead else 2
    assert 2 * STACK - slices * ACTIVATION <= saved <= 2 * STACK


@pytest.mark.parametrize("way", [None, *WAYS])
def test_device_bytes_are_as_predicted(way: Any):
    schedule, _, evidence = moved(way)
    predicted = candidate().fixed_bytes + candidate().allocation(schedule)
    # XLA reads some slices in the stack itself, and newer ones more of them.
    off = 0.1 if way is ahead else 0.05
    # The smallest buffers are not packed.
    assert evidence.device_bytes <= predicted * (1 + 1e-4)
    assert predicted == pytest.approx(evidence.device_bytes, rel=off)


def test_every_copy_is_counted():
    for way in (at_once, in_the_iteration):
        schedule, _, evidence = moved(way)
        assert evidence.copies == schedule.copies == 4
    # What is fetched ahead is fetched before the loop, too, for the first iteration.
    schedule, _, evidence = moved(ahead)
    assert schedule.copies == 4
    assert evidence.copies == 6


def bodies(executable: Any) -> list[list[str]]:
    """The instructions of the loops' bodies in scheduled HLO, in order."""
    text = executable.as_text()
    names = re.findall(r" while\(.*?body=%([\w.-]+)", text)
    assert names
    out = []
    for name in names:
        start = text.index(f"\n%{name} (")
        out.append(text[start : text.index("\n}", start)].splitlines()[2:])
    return out


def positions(body: list[str], pattern: str) -> list[int]:
    """Where instructions are."""
    return [i for i, line in enumerate(body) if re.search(pattern, line)]


START = r"dynamic-slice-start\S* = .*S\(5\)"
DONE = r"dynamic-slice-done\S* = "


def products(executable: Any, body: list[str]) -> list[int]:
    """Where a body runs products."""
    computations = re.split(r"\n(?=%|ENTRY)", executable.as_text())
    with_dot = [c.split(" ", 1)[0].strip() for c in computations if " dot(" in c]
    calls = "|".join(f"calls={re.escape(name)}[,\\s]" for name in with_dot)
    return positions(body, rf"{calls}|__cublas")


def backward(executable: Any) -> list[str]:
    """The body of the loop that fetches."""
    (body,) = (b for b in bodies(executable) if positions(b, START))
    return body


def test_what_is_fetched_ahead_comes_beside_the_whole_iteration():
    executable = moved(ahead)[1]
    body = backward(executable)
    starts, dones = positions(body, START), positions(body, DONE)
    beside = products(executable, body)
    assert len(beside) == len(starts) == len(dones) == 2
    assert max(starts) < min(beside)
    assert max(beside) < min(dones)


def test_what_is_fetched_at_once_comes_before_the_iteration():
    executable = moved(at_once)[1]
    body = backward(executable)
    assert max(positions(body, DONE)) < min(products(executable, body))


def test_stores_run_beside_the_rest_of_the_iteration():
    executable = moved(in_the_iteration)[1]
    (body,) = (
        b for b in bodies(executable) if positions(b, r"dynamic-update-slice-start")
    )
    starts = positions(body, r"dynamic-update-slice-start\S* = .*S\(5\)")
    assert len(starts) == 2
    # The layer's input is there at its start: it leaves beside the product.
    assert starts[0] < products(executable, body)[0]


def test_one_part_of_a_loop_moves():
    parts = candidate(((0, LAYERS - 2),))
    every = moving(parts.problem, in_the_iteration)
    low = {
        t.value
        for t in crossing(parts.problem)
        if t.crossing is not None and t.crossing.count == LAYERS - 2
    }
    schedule = Schedule(
        tuple(s for s in every.stores if s.value in low),
        tuple(f for f in every.fetches if f.value in low),
    )
    executable, evidence = compiled(parts, schedule)
    assert evidence.faults == ()
    assert evidence.copies == schedule.copies == 4
    assert evidence.host_bytes == 2 * (LAYERS - 2) * ACTIVATION
    predicted = parts.fixed_bytes + parts.allocation(schedule)
    assert predicted == pytest.approx(evidence.device_bytes, rel=0.1)
    least, most = temporary(moved(in_the_iteration)[1]), temporary(moved(None)[1])
    assert least < temporary(executable) < most


def test_a_budget_that_only_moving_meets():
    ws = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32)
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    step = autotm.jit(training, budget=moved(ahead)[2].device_bytes, target="h100-sxm")
    executable = step.lower(ws, x).compile()
    plan = step.plan(ws, x)
    assert plan.realised is not None
    assert autotm.device_bytes(executable) <= moved(ahead)[2].device_bytes
    assert plan.device_bytes == pytest.approx(plan.realised.device_bytes, rel=0.1)
    assert plan.schedule.stores
    assert plan.realised.host_bytes == plan.host_bytes > 0


def test_stacks_of_stacks():
    candidate = priced(*get("nested"))
    schedule = moving(candidate.problem, in_the_iteration)
    _, evidence = compiled(candidate, schedule)
    assert evidence.faults == ()
    assert evidence.host_bytes > 0


def test_slices_are_read_where_they_are():
    options = compiler_options("cuda")["xla_disable_hlo_passes"]
    disabled = str(options).split(",")
    assert ("dynamic-slice-annotator" in disabled) == compat.READS_WRONG_SLICES
    # What that pass would say about an address is nowhere in the executable.
    text = moved(ahead)[1].as_text()
    assert compat.READS_WRONG_SLICES != ("dynamic_slice_config" in text)


def test_what_is_made_of_constants_is_made_where_it_is_read():
    """Weights are cast again in each segment of a loop, not kept between them."""
    depth, wide, narrow, rows = 4, 2048, 512, 2048

    def loss(ws: Any, x: Any) -> Any:
        for up, down in jax.tree.map(lambda w: w.astype(jnp.bfloat16), ws):
            x = x + jnp.tanh(x @ up) @ down
        return mean_square(x.astype(jnp.float32))

    def accumulated(ws: Any, xs: Any) -> Any:
        def part(total: Any, x: Any) -> Any:
            return jax.tree.map(jnp.add, total, jax.grad(loss)(ws, x)), None

        return jax.lax.scan(part, jax.tree.map(jnp.zeros_like, ws), xs)[0]

    up = jax.ShapeDtypeStruct((narrow, wide), jnp.float32)
    down = jax.ShapeDtypeStruct((wide, narrow), jnp.float32)
    xs = jax.ShapeDtypeStruct((4, rows, narrow), jnp.bfloat16)
    of = priced(accumulated, ([(up, down)] * depth, xs))
    executable, _ = compiled(of, Schedule())
    predicted = packed_bytes(of.problem, replay(of.problem, Schedule()))
    assert temporary(executable) == pytest.approx(predicted, rel=0.05)
