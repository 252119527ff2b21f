from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

import autotm_jax as autotm
from autotm_jax.trace import (
    Fragment,
    Kind,
    Order,
    Program,
    evaluate,
    single_equations,
)
from autotm_jax.trace.variants import VARIANTS

from .programs import program_of, run
from .steps import assert_close


KEYS = jax.random.split(jax.random.key(5), 3)
X = jax.random.normal(KEYS[0], (16, 8))
W = jax.random.normal(KEYS[1], (8, 8))


def at_once(x: Any, w: Any) -> Any:
    """A vector, by one matmul."""
    return jax.nn.logsumexp(x @ w, -1)


def by_rows(x: Any, w: Any) -> Any:
    """The same vector, by a loop."""
    return jax.lax.map(lambda row: jax.nn.logsumexp(row @ w), x)


BOTH = autotm.variants(at_once, by_rows)


def loss(x: Any, w: Any) -> Any:
    """A layer, and two calls of a function with variants."""
    hidden = jnp.tanh(x @ w)
    return (BOTH(hidden, jnp.sin(w)) ** 2).mean() + BOTH(hidden, w).sum()


STEP = jax.value_and_grad(loss, (0, 1))


def names_of(program: Program, fragment: Fragment) -> list[str]:
    """The primitives of a fragment."""
    return [program.equations[i].eqn.primitive.name for i in fragment.equations]


def run_by(program: Program, variant: int, *args: Any) -> list[Any]:
    """As `run`, with every segment that has it run by a variant."""
    there: dict[int, Any] = dict(program.constants)
    there.update(zip(program.arguments, jax.tree.leaves(args), strict=True))
    for segment in program.segments:
        body = segment.body.by(variant if segment.body.branches else 0)
        there.update(evaluate(program, body, there.__getitem__))
    return [there[r] if isinstance(r, int) else r.val for r in program.results]


def test_each_call_and_each_backward_pass_is_a_segment():
    program = program_of(STEP, X, W)
    titles = [b.title for s in program.segments for b in s.body.branches]
    assert sorted(titles) == [
        "at_once, by_rows",
        "at_once, by_rows",
        "gradient of at_once, by_rows",
        "gradient of at_once, by_rows",
    ]
    for segment in program.segments:
        assert VARIANTS not in names_of(program, segment.body)
        for branch in segment.body.branches:
            default, other = segment.body, branch.fragment
            assert "scan" in names_of(program, other)
            assert "scan" not in names_of(program, default)
            assert (other.reads, other.writes) == (default.reads, default.writes)
            assert other.signature != default.signature


def test_every_branch_gives_the_values_of_the_step():
    program = program_of(STEP, X, W)
    wanted = jax.tree.leaves(jax.jit(STEP)(X, W))
    assert_close(run(program, X, W), wanted)
    assert_close(run_by(program, 1, X, W), wanted)


def test_equal_calls_have_equal_signatures():
    def twice(x: Any, w: Any) -> Any:
        return BOTH(jnp.tanh(BOTH(x, w)[:, None] * x), w)

    first, second = (s.body for s in program_of(twice, X, W).segments)
    assert first.branches and second.branches
    program = program_of(lambda x, w: BOTH(x, w), X, W)
    (alone,) = (s.body for s in program.segments)
    again = program_of(lambda x, w: BOTH(x, w), X + 1, W).segments[0].body
    assert again.signature == alone.signature
    assert again.by(1).signature == alone.by(1).signature
    assert not alone.by(1).signature.startswith("local:")


def test_nothing_heavy_or_filled_joins_it():
    def step(x: Any, w: Any, at: Any) -> Any:
        zeros = jnp.zeros((64, 8)).at[at].add(x)
        return BOTH(x, w), zeros, x @ w

    program = program_of(step, X, W, jnp.arange(16))
    (only,) = (s for s in program.segments if s.body.branches)
    names = [names_of(program, s.body) for s in program.segments]
    assert "scatter-add" not in names[only.index]
    assert names[only.index].count("dot_general") == 1


def test_small_ones_begin_a_segment_too():
    def step(x: Any, w: Any) -> Any:
        y = x @ w  # a megabyte
        return y, BOTH(y[:2, :8], w[:8, :8]), BOTH(y[2:4, :8], w[:8, :8])

    program = program_of(step, jnp.ones((512, 512)), jnp.ones((512, 512)))
    assert [len(s.body.branches) for s in program.segments] == [0, 1, 1]


def test_results_that_are_no_work():
    def plain(x: Any) -> Any:
        y = x + 1
        return x, y, y, jnp.float32(2.0)

    def other(x: Any) -> Any:
        y = 1 + x
        return x * 1, y, x + 1, jnp.float32(2.0)

    both = autotm.variants(plain, other)

    def step(x: Any) -> Any:
        a, b, c, d = both(x @ x.T)
        return a * 2, b @ b, c, d * 3

    program = program_of(step, X)
    wanted = list(step(X))
    assert_close(run(program, X), wanted)
    assert_close(run_by(program, 1, X), wanted)


def test_what_nobody_reads_is_not_computed():
    def pair(x: Any) -> Any:
        return x @ x.T, jnp.sort(x)

    def other(x: Any) -> Any:
        return (x[:, None] * x).sum(-1), jax.lax.map(jnp.sort, x)

    both = autotm.variants(pair, other)
    program = program_of(lambda x: both(x)[0], X)
    (segment,) = program.segments
    assert "sort" not in names_of(program, segment.body)
    assert "scan" not in names_of(program, segment.body.by(1))


def test_constants_of_branches_are_read():
    table = np.arange(64, dtype=np.float32).reshape(8, 8)

    def with_table(x: Any) -> Any:
        return jax.jit(lambda x: x @ jnp.asarray(table))(x)

    def with_rows(x: Any) -> Any:
        return jax.lax.map(lambda row: row @ jnp.asarray(table), x)

    program = program_of(autotm.variants(with_table, with_rows), X)
    assert_close(run(program, X), [X @ table])
    assert_close(run_by(program, 1, X), [X @ table])


def test_one_inside_of_another_runs_by_its_default():
    def nested(x: Any, w: Any) -> Any:
        return 2 * BOTH(x, w)

    both = autotm.variants(nested, lambda x, w: BOTH(x, w) + by_rows(x, w), of="sum")
    program = program_of(both, X, W)
    (segment,) = program.segments
    assert [b.title for b in segment.body.branches] == ["sum, <lambda>"]
    assert names_of(program, segment.body.by(1)).count("scan") == 1
    assert_close(run_by(program, 1, X, W), [2 * at_once(X, W)])


def test_a_loop_around_it_is_opaque():
    def step(x: Any, w: Any) -> Any:
        return jax.lax.scan(lambda c, _: (c + BOTH(x, w).sum(), None), 0.0, None, 3)[0]

    program = program_of(step, X, W)
    assert not any(s.body.branches for s in program.segments)
    assert_close(run(program, X, W), [step(X, W)])


def test_one_hot_scatters_of_branches_are_selects():
    labels = jnp.arange(16) % 8

    def chosen(x: Any) -> Any:
        return jnp.take_along_axis(x, labels[:, None], -1)[:, 0]

    def compared(x: Any) -> Any:
        return jnp.where(labels[:, None] == jnp.arange(8), x, 0).sum(-1)

    both = autotm.variants(chosen, compared)
    program = program_of(jax.grad(lambda x, w: both(x @ w).sum()), X, W)
    names = [n for s in program.segments for n in names_of(program, s.body)]
    assert "scatter-add" not in names
    assert_close(run(program, X, W), [jax.grad(lambda x, w: chosen(x @ w).sum())(X, W)])


def test_what_is_computed_again_runs_by_the_default():
    def step(x: Any, w: Any) -> Any:
        norm = BOTH(jnp.tanh(x @ w), w)
        y = (x * norm[:, None]) @ w
        return y, ((y @ w) * norm[:, None]) @ w

    program = program_of(step, X, W)
    (segment,) = (s for s in program.segments if s.body.branches)
    norm = min(segment.body.writes)
    maker = program.values[norm].producer
    assert maker is not None
    assert program.equations[maker].eqn.primitive.name == VARIANTS
    again = program.recomputations[norm]
    assert again.branches == ()
    assert "scan" not in names_of(program, again)

    # With something as the default that says so, it is run as often as it is written.
    def held(x: Any, w: Any) -> Any:
        return jax.lax.optimization_barrier(at_once(x, w))

    swapped = autotm.variants(held, at_once)
    program = program_of(lambda x, w: (swapped(jnp.tanh(x @ w), w), x @ w), X, W)
    assert program.recomputations.keys().isdisjoint(
        v for s in program.segments if s.body.branches for v in s.body.writes
    )


def test_only_some_branches_are_kept():
    three = autotm.variants(at_once, by_rows, lambda x, w: at_once(x, w) + 0)
    program = program_of(lambda x, w: three(jnp.tanh(x @ w), w), X, W)
    (segment,) = (s for s in program.segments if s.body.branches)
    kept = program.keeping({segment.index: {"<lambda>"}})
    body = kept.segments[segment.index].body
    assert [b.name for b in body.branches] == ["<lambda>"]
    assert body.by(1) == segment.body.by(2)
    assert not any(s.body.branches for s in program.keeping({}).segments)


def test_why_variants_are_left_out():
    def nowhere(x: Any, w: Any) -> Any:
        raise NotImplementedError("it needs another machine")

    some = autotm.variants(at_once, nowhere, by_rows)
    program = program_of(lambda x, w: some(some(x, w)[:, None] * x, w), X, W)
    assert program.left_out == {"at_once, nowhere: it needs another machine": 2}
    assert [b.name for s in program.segments for b in s.body.branches] == [
        "by_rows",
        "by_rows",
    ]


def test_single_equations_are_those_of_the_branches():
    program = program_of(BOTH, X, W)
    singles = single_equations(program)
    names = [n for f in singles for n in names_of(program, f)]
    assert "scan" in names and "dot_general" in names
    assert VARIANTS not in names


def test_a_context_keeps_the_call_whole():
    def step(x: Any, w: Any) -> Any:
        with set_xla_metadata(group="1"):
            return BOTH(x, w)

    program = program_of(step, X, W)
    assert not any(s.body.branches for s in program.segments)
    assert_close(run(program, X, W), [at_once(X, W)])


def test_kinds_and_order():
    traced = jax.jit(STEP).trace(X, W)
    for order in Order:
        program = autotm.trace.build_program(traced.jaxpr, [False] * 2, order)
        for segment in program.segments:
            for branch in segment.body.branches:
                kinds = {
                    program.equations[i].kind
                    for i in branch.fragment.equations
                    if program.equations[i].eqn.primitive.name == "scan"
                }
                assert kinds == {Kind.KERNEL}
