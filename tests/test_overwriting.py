"""What segments may overwrite, compiled for a GPU."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.profile import (
    Changes,
    as_planned,
    estimate_costs,
    recomputations_apart,
)
from autotm_jax.profile.costs import Overwriting
from autotm_jax.profile.overwriting import changed, segment_workspaces, ways_to_run
from autotm_jax.profile.workspace import Probe, Workspace, ask
from autotm_jax.trace import Program

from .compiling import needs_cuda_plugin
from .programs import program_of


N = 1024
W = jax.ShapeDtypeStruct((N, N), jnp.float32)
HEADS = jax.ShapeDtypeStruct((2, 2, N, N), jnp.float32)
IMAGES = jax.ShapeDtypeStruct((32, 32, 32, 32), jnp.float32)
FILTERS = jax.ShapeDtypeStruct((3, 3, 32, 32), jnp.float32)


def product(x: Any, w: Any) -> Any:
    """Matrices, written as they are read."""
    return jnp.sin(x @ w) @ w


def heads(x: Any, w: Any) -> Any:
    """Stacks of stacks of matrices, which are written as stacks of matrices."""
    return jnp.cumsum(jnp.matmul(x, w), -1) @ w


def convolution(x: Any, w: Any) -> Any:
    """One of the two results of a kernel; the other is its workspace."""
    sizes = "NHWC", "HWIO", "NHWC"

    def conv(y: Any) -> Any:
        return jax.lax.conv_general_dilated(y, w, (1, 1), "SAME", None, None, sizes)

    return conv(jax.lax.sort(conv(x)))


def plain_of(step: Callable[..., Any], *avals: Any) -> tuple[Program, dict[int, Any]]:
    """The program, and what may be overwritten."""
    program = program_of(step, *avals)
    found, overwriting, _ = segment_workspaces(program, autotm.target("h100-sxm"))
    assert all(isinstance(w, Workspace) for w in found.values())
    return program, dict(overwriting.plain)


@needs_cuda_plugin
def test_what_a_kernel_alone_wrote_may_be_overwritten():
    def step(x: Any, w: Any) -> Any:
        y = jnp.sin(x @ w)
        z = jnp.cumsum(y, 1) @ w
        return z @ w

    _, plain = plain_of(step, W, W)
    assert plain
    for name, step, avals in (
        ("views", heads, (HEADS, HEADS)),
        ("several results", convolution, (IMAGES, FILTERS)),
    ):
        assert plain_of(step, *avals)[1] == {}, name


@needs_cuda_plugin
def test_what_overwrites_a_matrix_is_compiled_once(monkeypatch: pytest.MonkeyPatch):
    asked: list[Probe] = []

    def recorded(program: Program, probes: Any, *rest: Any) -> Any:
        asked.extend(probes)
        return ask(program, probes, *rest)

    monkeypatch.setattr("autotm_jax.profile.overwriting.ask", recorded)
    program, plain = plain_of(lambda x, w: x @ w @ w, W, W)
    assert plain
    assert len(asked) == len(program.segments)
    for segment in program.segments:
        (probe,) = (p for p in asked if p.fragment is segment.body)
        assert probe.plain == plain.get(segment.index, frozenset())


# Something is copied, but no segment is compiled otherwise for it.
NOTHING = Changes({}, {}, {}, {}, {}, copies={0})


def chain(x: Any, w: Any) -> Any:
    """Products whose gradient reads each result twice."""
    y = x @ w
    z = y @ w
    return jnp.sin(y * z).sum() + (z @ w).sum()


@needs_cuda_plugin
def test_what_was_away_is_not_overwritten():
    target = autotm.target("h100-sxm")
    program = program_of(jax.grad(chain), W, W)
    costs = estimate_costs(program, target)
    assert costs.overwriting.plain
    k, values = next(iter(costs.overwriting.plain.items()))
    assert as_planned(program, costs, NOTHING, target) == {}
    away = dataclasses.replace(NOTHING, back=dict.fromkeys(values, k))
    found = as_planned(program, costs, away, target)
    assert [*found] == [k]
    change, timeline = found[k]
    assert change >= 0
    assert timeline is not None
    # Whoever reads it later is not asked.
    later = dataclasses.replace(NOTHING, back=dict.fromkeys(values, k + 1))
    assert as_planned(program, costs, later, target) == {}


@needs_cuda_plugin
def test_a_segment_whose_results_are_stored_is_compiled_with_the_copies():
    target = autotm.target("h100-sxm")
    program = program_of(jax.grad(chain), W, W)
    costs = estimate_costs(program, target)
    (value, *_) = program.segments[0].body.writes
    stored = dataclasses.replace(NOTHING, stored={0: [value]})
    ((change, timeline),) = as_planned(program, costs, stored, target).values()
    # What is copied is there until the copy is done, and what XLA needs for a copy.
    assert 0 < change < 4096
    assert timeline is not None
    assert value in [result for result, *_ in timeline.made]


@needs_cuda_plugin
def test_what_is_dropped_is_not_made():
    target = autotm.target("h100-sxm")
    program = program_of(lambda x, w: (jnp.sin(x @ w) @ w) * jnp.cos(x @ w), W, W)
    costs = estimate_costs(program, target)
    body = program.segments[0].body
    value = max(body.writes)
    dropped = dataclasses.replace(NOTHING, dropped={0: [value]})
    ((change, timeline),) = as_planned(program, costs, dropped, target).values()
    before = costs.segments[0].timeline
    assert change <= 0
    assert timeline is not None and before is not None
    assert len(timeline.made) + len(timeline.replaced) + 1 == len(body.writes)


def twice(x: Any, w: Any) -> Any:
    """A product that is read twice, with others between."""
    y = jnp.sin(x @ w)
    z = (jnp.sin(y @ w) + y) @ w
    return jnp.sin(z @ w) @ y


@needs_cuda_plugin
def test_what_leaves_and_comes_back_is_overwritten_meanwhile():
    target = autotm.target("h100-sxm")
    program = program_of(twice, W, W)
    costs = estimate_costs(program, target)
    (value,) = program.segments[0].body.writes
    k = next(s.index for s in program.segments[1:] if value in s.body.reads)
    assert value in costs.overwriting.alone
    gone = dataclasses.replace(NOTHING, gone={k: {value}}, back={value: k + 2})
    change, timeline = as_planned(program, costs, gone, target)[k]
    assert timeline is not None
    places = [operand for operand, *_ in (*timeline.replaced, *timeline.dying)]
    assert value in places
    assert change <= 0
    # What came back before is no more than a copy, which nothing overwrites.
    copied = dataclasses.replace(gone, back={value: k})
    assert k not in as_planned(program, costs, copied, target)


@needs_cuda_plugin
def test_what_is_made_again_is_another_kernels_from_then_on():
    target = autotm.target("h100-sxm")
    program = program_of(twice, W, W)
    costs = estimate_costs(program, target)
    (value,) = program.segments[0].body.writes
    first, *_, last = [s.index for s in program.segments if value in s.body.reads]
    gone = dataclasses.replace(NOTHING, gone={first: {value}, last: {value}})
    # The segment before the last read makes it again, beside something else.
    body = program.segments[last - 1].body
    writes = (value, *body.writes)
    again = Probe(dataclasses.replace(body, writes=writes), frozenset())
    probes, found = {last - 1: again}, {last - 1: Workspace(0, plain=())}
    assert value in costs.overwriting.alone
    plain = changed(program, costs, gone, probes, found)
    assert value in plain[first]
    assert value not in plain[last]
    assert value in changed(program, costs, gone, {}, {})[last]


@needs_cuda_plugin
def test_recomputations_apart_are_asked_for_by_themselves():
    target = autotm.target("h100-sxm")
    program = program_of(jax.grad(chain), W, W)
    (value, *_) = program.recomputations
    changes = dataclasses.replace(NOTHING, apart={value: (value,)})
    found = recomputations_apart(program, changes, target)
    assert [*found] == [value]
    timeline = found[value].timeline
    assert timeline is not None
    assert [made for made, *_ in timeline.made] == [value]
    assert timeline.dying == timeline.replaced == ()
    assert recomputations_apart(program, changes, autotm.target()) == {}


@needs_cuda_plugin
def test_where_nothing_is_copied_segments_are_asked_for_again():
    target = autotm.target("h100-sxm")
    program = program_of(jax.grad(chain), W, W)
    costs = estimate_costs(program, target)
    assert as_planned(program, costs, NOTHING, target) == {}
    quiet = dataclasses.replace(NOTHING, copies=())
    found = as_planned(program, costs, quiet, target)
    assert sorted(found) == [s.index for s in program.segments]


def test_a_cpu_says_nothing_about_an_accelerator():
    program = program_of(product, W, W)
    costs = estimate_costs(program, autotm.target())
    assert costs.overwriting == Overwriting()
    changes = dataclasses.replace(NOTHING, back={0: 1}, stored={0: [0]})
    assert as_planned(program, costs, changes, autotm.target()) == {}


def test_a_segment_runs_by_its_body_or_a_branch():
    both = autotm.variants(product, lambda x, w: product(x, w))
    program = program_of(lambda x, w: both(x, w) @ w, W, W)
    ways = [ways_to_run(s) for s in program.segments]
    assert max(map(len, ways)) == 2
    assert all(w[0] == s.body for w, s in zip(ways, program.segments, strict=True))
