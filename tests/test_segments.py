import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotm_jax.emit import emit
from autotm_jax.solve import Schedule
from autotm_jax.trace import (
    Kind,
    Program,
    backward_segments,
    build_program,
    evaluate,
    single_equations,
)
from benchmarks.workloads import gpt

from .programs import program_of, random_step, run
from .steps import MORE, TINY, assert_close, chain, chain_arguments, chain_step, get


X = jnp.linspace(-1.0, 1.0, 36).reshape(6, 6)
Y = jnp.cos(jnp.arange(36.0)).reshape(6, 6)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_segments_compute_what_the_step_computes(seed: int):
    step = random_step(seed)
    program = program_of(step, X, Y)
    # Operation by operation: each is compiled once for all examples.
    assert_close(run(program, X, Y), jax.tree.leaves(step(X, Y)))
    check_invariants(program)


def check_invariants(program: Program) -> None:
    """What every program promises."""
    there = set(program.resident)
    last: dict[int, int] = {}
    for segment in program.segments:
        assert segment is program.segments[segment.index]
        assert set(segment.body.reads) <= there  # made before they are read
        assert not set(segment.body.writes) & there  # and made once
        there |= set(segment.body.writes)
        last.update(dict.fromkeys(segment.body.reads, segment.index))
    assert program.returned <= there
    kept = program.resident | program.returned
    for segment in program.segments:
        for value in segment.body.reads:
            dies = value not in kept and last[value] == segment.index
            assert (value in segment.dying) == dies
        for value in segment.body.writes:
            assert value in kept or last[value] > segment.index
    # Everything that is not fused runs exactly once.
    runs = [e for s in program.segments for e in s.body.equations]
    for equation in program.equations:
        if equation.kind is not Kind.FUSED:
            assert runs.count(equation.index) == 1
    # Touches are the segments that make or read a value, in order.
    touches = program.touches()
    for value, at in touches.items():
        assert at == sorted(set(at))
        assert value not in program.resident
        assert value in program.segments[at[0]].body.writes
        for k in at[1:]:
            assert value in program.segments[k].body.reads
    crossing = {v for s in program.segments for v in s.body.writes}
    assert set(touches) == crossing - program.resident
    assert set(program.recomputations) <= crossing


@pytest.mark.parametrize("name", (*TINY, *MORE))
def test_workloads(name: str):
    workload = get(name)
    program = program_of(workload.step, *workload.args, donate_argnums=0)
    check_invariants(program)
    assert len(program.segments) >= 8
    assert len(program.results) == len(jax.tree.leaves(workload.args[0])) + 1


@pytest.mark.parametrize("name", ["gpt-tiny", "resnet-tiny"])
def test_recomputations_give_the_same_values(name: str):
    workload = get(name)
    program = program_of(workload.step, *workload.args)
    args = workload.make(0)

    def both(*args: Any) -> Any:
        there: dict[int, Any] = dict(program.constants)
        there.update(zip(program.arguments, jax.tree.leaves(args), strict=True))
        for segment in program.segments:
            there.update(evaluate(program, segment.body, there.__getitem__))
        return {
            value: (evaluate(program, fragment, there.__getitem__)[value], there[value])
            for value, fragment in program.recomputations.items()
        }

    pairs = jax.jit(both)(*args)
    assert len(pairs) > 10
    for again, first in pairs.values():
        assert_close(again, first)


def signatures(config: gpt.Config) -> list[str]:
    """The signatures of the segments of a GPT."""
    workload = gpt.workload(config)
    program = program_of(workload.step, *workload.args, donate_argnums=0)
    return [s.body.signature for s in program.segments]


def test_equal_layers_have_equal_signatures():
    tiny = {"width": 32, "heads": 2, "vocabulary": 64, "length": 8, "batch": 2}
    four = signatures(gpt.Config(layers=4, **tiny))
    eight = signatures(gpt.Config(layers=8, **tiny))
    assert len(eight) > len(four) + 4 * 10
    # More layers are no new kinds of segment.
    assert len(set(eight)) <= len(set(four)) + 2
    assert len(set(four)) < len(four)
    # The same program has the same signatures whenever it is traced.
    assert signatures(gpt.Config(layers=4, **tiny)) == four
    wide = signatures(gpt.Config(layers=4, **{**tiny, "batch": 3}))
    assert not set(wide) & set(four)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: jnp.sum(x @ x, 0), lambda x: jnp.sum(x @ x, 1)),
        (lambda x: x @ x * 2, lambda x: x @ x * 3),
        (lambda x: x @ x + x, lambda x: x @ x - x),
        (lambda x: x @ x, lambda x: x.T @ x),
        (lambda x: (x @ x) @ x, lambda x: x @ (x @ x) @ x),
    ],
)
def test_different_segments_have_different_signatures(one: Any, other: Any):
    first, second = program_of(one, X), program_of(other, X)
    assert [s.body.signature for s in first.segments] != [
        s.body.signature for s in second.segments
    ]


def test_callbacks_have_a_local_signature():
    def step(x: Any) -> Any:
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda v: v, out, x @ x)

    program = program_of(step, X)
    assert any(s.body.signature.startswith("local:") for s in program.segments)


def test_touches_of_a_chain():
    x, weights = chain_arguments(layers=3)
    program = program_of(chain_step, x, weights)
    # Forward: x@w0, x@w1, x@w2; backward: two dots per layer, one for the first.
    assert len(program.segments) == 8
    activations = [
        at
        for v, at in program.touches().items()
        if program.values[v].nbytes == 64 * 128
    ]
    assert min(at[0] for at in activations) == 0
    assert max(at[-1] for at in activations) == 7
    assert all(at[0] == min(at) for at in activations)


def test_small_kernels_run_in_their_neighbours_segment():
    big, small = jnp.ones((256, 256)), jnp.ones((2, 2))
    program = program_of(lambda a, b: (a @ a, b @ b), big, small)
    assert len(program.segments) == 1
    program = program_of(lambda a, b: (a @ a, b @ b), big, big)
    assert len(program.segments) == 2


def reported(step: Any, args: Any, **options: Any) -> tuple[int, int, int]:
    """Argument, result and alias bytes of a compiled step."""
    stats = jax.jit(step, **options).lower(*args).compile().memory_analysis()
    return (
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.alias_size_in_bytes,
    )


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("donate", [(), 0])
def test_bytes_are_those_that_xla_reports(name: str, donate: Any):
    workload = get(name)
    program = program_of(workload.step, *workload.args, donate_argnums=donate)
    found = (program.argument_bytes(), *program.result_bytes())
    argument, output, alias = reported(
        workload.step, workload.args, donate_argnums=donate
    )
    # XLA adds the table of a tuple's pointers, on a CPU.
    pointers = 8 * len(program.results)
    assert found[0] == argument
    assert output - pointers <= found[1] <= output
    assert found[2] == alias


def test_bytes_of_every_dtype():
    dtypes = ("bool", "int8", "uint16", "float32", "bfloat16", "float8_e4m3fn")
    arrays = [jnp.zeros(30, d) for d in dtypes]
    program = program_of(lambda *a: [x[:10] for x in a], *arrays)
    argument, _, _ = reported(lambda *a: [x[:10] for x in a], arrays)
    assert program.argument_bytes() == argument == 30 * (1 + 1 + 2 + 4 + 2 + 1)
    four = program_of(lambda x: x * 2, jnp.zeros(31, jnp.int4))
    assert four.argument_bytes() == 16
    key = program_of(lambda k: jax.random.split(k), jax.random.key(0))
    assert key.argument_bytes() == 8
    assert key.result_bytes() == (16, 0)


def test_donated_arguments_are_paired_by_shape_and_dtype():
    def step(a: Any, b: Any, c: Any) -> Any:
        return a + 1, b.astype(jnp.int32), c[:2]

    args = (jnp.ones(8), jnp.ones(8), jnp.ones(8))
    program = program_of(step, *args, donate_argnums=(0, 1, 2))
    assert program.donated == (True, True, True)
    assert program.result_bytes() == (32 + 32 + 8, 32)
    assert program.aliases == ((program.results[0], program.arguments[0]),)


def test_pairs_follow_the_order_of_the_results():
    def swap(a: Any, b: Any) -> Any:
        return b + 1, a + 1

    program = program_of(swap, jnp.ones(8), jnp.ones(8), donate_argnums=(0, 1))
    assert program.aliases == tuple(
        zip(program.results, program.arguments, strict=True)
    )
    assert program_of(swap, jnp.ones(8), jnp.ones(8)).aliases == ()


def test_each_buffer_to_scatter_into_has_a_segment_of_its_own():
    def loss(tables: Any, at: Any) -> Any:
        rows = [jnp.take(t, at, axis=0) for t in tables]
        return jnp.sum(jnp.stack(rows, 1) ** 2)

    def step(tables: Any, at: Any) -> Any:
        grads = jax.grad(loss)(tables, at)
        return [t - g for t, g in zip(tables, grads, strict=True)]

    tables, at = [jnp.ones((64, 8)) * i for i in range(4)], jnp.arange(16)
    program = program_of(step, tables, at, donate_argnums=0)
    scatters = [
        sum("scatter" in program.equations[i].eqn.primitive.name for i in body)
        for body in (s.body.equations for s in program.segments)
    ]
    assert scatters == [1, 1, 1, 1]
    # The new table is made where its gradient is.
    made = {v: s.index for s in program.segments for v in s.body.writes}
    assert sorted(made[r] for r in program.results) == [0, 1, 2, 3]
    assert_close(run(program, tables, at), step(tables, at))


def test_a_step_without_equations():
    program = program_of(lambda x: x, X)
    assert program.segments == ()
    assert program.results == program.arguments
    assert program.touches() == {}
    assert run(program, X)[0] is X


def test_unused_arguments_stay():
    program = program_of(lambda x, y: x @ x, X, Y)
    assert len(program.arguments) == 2
    assert_close(run(program, X, Y), [X @ X])


def test_gradients_of_a_chain_are_right():
    args = chain_arguments(layers=3)
    program = program_of(jax.grad(chain, argnums=(0, 1)), *args)
    wanted = jax.jit(jax.grad(chain, argnums=(0, 1)))(*args)
    assert_close(jax.jit(lambda *a: run(program, *a))(*args), jax.tree.leaves(wanted))


def test_the_sum_of_the_parts():
    program = program_of(chain_step, *chain_arguments())
    for value in program.values:
        itemsize = value.aval.dtype.itemsize
        assert value.nbytes == math.prod(value.aval.shape) * itemsize
        assert value.producer is None or value.index in (
            program.equations[value.producer].outputs
        )


def test_donated_must_match_the_arguments():
    traced = jax.jit(lambda x, y: x + y).trace(X, Y)
    with pytest.raises(ValueError):
        build_program(traced.jaxpr, [False])


def test_single_equations():
    x = jnp.ones((8, 8))
    program = program_of(lambda x: jnp.sin(x @ x) + jnp.sin(x), x)
    found = single_equations(program)
    assert [f.equations for f in found] == [(e.index,) for e in program.equations]
    for fragment, equation in zip(found, program.equations, strict=True):
        assert set(fragment.reads) == set(equation.operands)
        assert fragment.writes == equation.outputs
    names = [e.eqn.primitive.name for e in program.equations]
    one, other = (found[i] for i, name in enumerate(names) if name == "sin")
    # An argument and a tensor are not the same kind of operand.
    assert one.signature != other.signature


def test_large_buffers_are_written_to_at_literal_places():
    def step(cache: Any, x: Any, w: Any) -> Any:
        y = x @ w
        return jax.lax.dynamic_update_slice(cache, y, (0, 4, 0)), y @ w

    w = jnp.eye(8)
    args = jnp.zeros((2, 16, 8)), jnp.ones((2, 1, 8)), w
    program = program_of(step, *args)
    assert_close(run(program, *args), jax.tree.leaves(jax.jit(step)(*args)))


def loop_with_results(x: Any, cache: Any, ws: Any) -> Any:
    """A carry that is overwritten, one that is swapped, and one that is read late."""

    def body(state: Any, w: Any) -> Any:
        x, cache, a, b, late = state
        cache = cache.at[0].add(x.sum())
        y = x @ w
        new = late + 1
        return (y @ w + new[0, 0] + late.sum(), cache, b, a, new @ w), y.sum()

    start = jnp.sin(cache)
    (x, cache, a, b, late), sums = jax.lax.scan(body, (x, start, x, -x, x @ ws[0]), ws)
    return cache, a, b, late, sums


def test_what_a_loop_carries_is_where_its_result_is():
    x, ws = jnp.ones((8, 8)), jnp.ones((3, 8, 8))
    program = program_of(loop_with_results, x, x, ws, loops=True)
    (loop,) = program.loops
    by_result = {c.result: c for c in loop.carries}
    cache, a, b, *_ = (by_result[r] for r in program.results[:4])
    found = program.with_results
    assert {cache.initial, cache.before, cache.after, cache.result} <= found
    assert program.overwritten.get(cache.after) == cache.before
    # They take each other's places, by a copy.
    assert {a.before, b.before, a.result, b.result} <= found
    assert a.after not in program.overwritten and b.after not in program.overwritten
    # The one that the step does not return is a value as any other.
    (other,) = (c for c in loop.carries if c.result not in program.results)
    assert found.isdisjoint({other.initial, other.before, other.after, other.result})
    args = x, x, ws
    wanted = jax.tree.leaves(jax.jit(loop_with_results)(*args))
    assert_close(jax.jit(emit(program, Schedule()))(*args), wanted)


def test_the_backward_pass_is_known_by_what_jax_transposes():
    program = program_of(chain_step, *chain_arguments())
    found = backward_segments(program)
    assert found == sorted(found) and 0 < found[0] < found[-1]
    assert backward_segments(program_of(chain, *chain_arguments())) == []
