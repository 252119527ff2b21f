from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Primitive
from jax.interpreters import mlir

import autotm_jax as autotm
from autotm_jax import SolverOptions
from autotm_jax.candidate import Candidate
from autotm_jax.formulate import formulate
from autotm_jax.machine import Target, describe
from autotm_jax.profile import Costs, estimate_costs, profiler
from autotm_jax.profile.alone import Measurement
from autotm_jax.profile.timing import Timing
from autotm_jax.solve import Pick, Schedule, replay
from autotm_jax.trace import Program

from .compiling import needs_cuda_plugin
from .programs import program_of


HERE = Target(describe("cpu"))
X = jax.ShapeDtypeStruct((4096, 256), jnp.float32)
W = jax.ShapeDtypeStruct((256, 8192), jnp.float32)

# It can be traced, and is run nowhere.
nowhere_p = Primitive("nowhere")
nowhere_p.def_abstract_eval(lambda x: x)


@nowhere_p.def_impl
def _anywhere(x: Any) -> Any:
    return x


def _refuse(*_: Any) -> Any:
    raise ValueError("There is no device.\nNor will there be.")


mlir.register_lowering(nowhere_p, _refuse)


def at_once(x: Any, w: Any) -> Any:
    """All products in memory."""
    return jax.nn.logsumexp(x @ w, -1)


def in_chunks(x: Any, w: Any) -> Any:
    """A sixteenth of them at a time."""
    chunks = x.reshape(16, -1, x.shape[-1])
    return jax.lax.map(lambda rows: at_once(rows, w), chunks).reshape(-1)


def nowhere(x: Any, w: Any) -> Any:
    """What no compiler takes."""
    return nowhere_p.bind(at_once(x, w))


def refused(x: Any, w: Any) -> Any:
    """What is not even traced."""
    raise NotImplementedError("it is for another chip")


SOME = autotm.variants(at_once, nowhere, in_chunks, refused)


def step(x: Any, w: Any) -> Any:
    """Two calls, of which one reads the other's result."""
    first = SOME(jnp.tanh(x @ w @ w.T), w)
    return SOME(x * first[:, None], w)


def costs_of(target: Any = HERE) -> tuple[Program, Costs]:
    """The step and what it costs."""
    program = program_of(step, X, W)
    return program, estimate_costs(program, target)


def test_what_cannot_be_had_is_left_out_and_said():
    program, costs = costs_of()
    with_branches = [s.index for s in program.segments if s.body.branches]
    assert [*costs.variants] == with_branches
    assert len(with_branches) == 2
    for had in costs.variants.values():
        assert [name for name, _ in had] == ["in_chunks"]
    assert costs.left_out == {
        "at_once, refused: it is for another chip": 2,
        "at_once, nowhere: it does not compile (ValueError: There is no device)": 2,
    }


def test_xla_is_asked_about_variants_even_on_a_cpu():
    program, costs = costs_of()
    assert costs.memory_source.startswith("XLA, ")
    assert costs.memory_source.endswith(", the others estimated")
    for k, ((_, chunked),) in costs.variants.items():
        products = 4 * X.shape[0] * W.shape[1]
        assert costs.segments[k].workspace >= 0.9 * products
        assert chunked.workspace <= products / 8
        assert costs.by(k, 0) == costs.segments[k]
        assert costs.by(k, 1) == chunked
        assert chunked.source == "roofline"
        # The same work, and more launches.
        assert chunked.seconds == pytest.approx(costs.segments[k].seconds, rel=0.1)
    plain = program_of(at_once, X, W)
    assert estimate_costs(plain, HERE).memory_source == "estimated"


@needs_cuda_plugin
def test_the_workspace_of_a_variant_is_that_of_its_branch():
    _, costs = costs_of(autotm.target("h100-sxm"))
    for k, ((_, chunked),) in costs.variants.items():
        assert chunked.workspace <= costs.segments[k].workspace / 8


def test_variants_are_numbered_as_they_are_priced():
    program, costs = costs_of()
    candidate = Candidate(program, HERE, 2**40, SolverOptions())
    problem = formulate(program, costs, describe("cpu"), float("inf"), 2**40)
    assert candidate.problem == problem
    for k, others in problem.variants.items():
        assert [v.name for v in others] == ["in_chunks"]
        branches = candidate.program.segments[k].body.branches
        assert [b.name for b in branches] == ["in_chunks"]
        assert others[0].workspace == costs.variants[k][0][1].workspace
    picks = tuple(Pick(k, 1) for k in problem.variants)
    default = replay(problem, Schedule())
    chunked = replay(problem, Schedule(picks=picks))
    assert chunked.faults == ()
    assert all(chunked.device[k] < default.device[k] for k in problem.variants)


class Timings:
    """Measurements that are made up, by the primitives that are run."""

    def __init__(self, failures: dict[str, str]):
        self.failures = failures
        self.seen: list[str] = []

    def __call__(self, program: Program, fragment: Any, _: Any) -> Measurement:
        names = {program.equations[i].eqn.primitive.name for i in fragment.equations}
        self.seen += sorted(names)
        for name, failure in self.failures.items():
            if name in names:
                return Measurement(None, failure)
        return Measurement(Timing(0.5 if "scan" in names else 1.0, 0.01, 7, 0, 1))


def measured(monkeypatch: pytest.MonkeyPatch, failures: dict[str, str]) -> Costs:
    """What the step costs by made up timings."""
    monkeypatch.setattr(profiler, "measure_alone", Timings(failures))
    program = program_of(step, X, W)
    return estimate_costs(program, autotm.target(), measured=True)


def test_variants_are_timed(monkeypatch: pytest.MonkeyPatch, own_cache: Path):
    costs = measured(monkeypatch, {})
    for k, ((_, chunked),) in costs.variants.items():
        assert chunked.seconds == pytest.approx(0.5, rel=1e-3)
        assert costs.segments[k].seconds == pytest.approx(1.0, rel=1e-3)
        assert chunked.source == "measured"


def test_what_does_not_run_is_left_out(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path
):
    failure = "it cannot run alone (XlaRuntimeError: no such kernel)"
    costs = measured(monkeypatch, {"scan": failure})
    assert costs.variants == {}
    assert costs.left_out[f"at_once, in_chunks: {failure}"] == 2


@pytest.mark.parametrize(
    "failures",
    [
        {"scan": "it does not fit into memory alone"},
        {"scan": "it cannot run alone (E: x)", "dot_general": "it cannot run alone ()"},
    ],
)
def test_what_only_could_not_be_timed_stays(
    failures: dict[str, str], monkeypatch: pytest.MonkeyPatch, own_cache: Path
):
    costs = measured(monkeypatch, failures)
    assert [name for had in costs.variants.values() for name, _ in had] == [
        "in_chunks",
        "in_chunks",
    ]
    assert {c.source for had in costs.variants.values() for _, c in had} == {
        "scaled roofline"
    }


def test_a_conditional_is_not_timed(monkeypatch: pytest.MonkeyPatch, own_cache: Path):
    monkeypatch.setattr(profiler, "measure_alone", Timings({}))

    def choosing(x: Any, w: Any) -> Any:
        y = jax.lax.cond(x[0, 0] > 0, at_once, lambda x, w: x[:, 0], x, w)
        return y, jnp.exp(y)[:, None] * x @ w

    program = program_of(choosing, X, W)
    costs = estimate_costs(program, autotm.target(), measured=True)
    for segment, cost in zip(program.segments, costs.segments, strict=True):
        names = {
            program.equations[i].eqn.primitive.name for i in segment.body.equations
        }
        if names & {"cond", "dot_general"}:
            is_timed = cost.source == "measured"
            assert is_timed == ("cond" not in names)
            assert is_timed or cost.source == "scaled roofline"
