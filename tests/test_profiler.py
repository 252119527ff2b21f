from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import autotm_jax as autotm
from autotm_jax.profile import Profile, estimate_costs, profile, profiler
from autotm_jax.profile.alone import Measurement
from autotm_jax.profile.configurations import ON_DEVICE
from autotm_jax.profile.timing import Timing
from autotm_jax.trace import Program

from .programs import program_of
from .steps import chain, chain_arguments


TIMING = Timing(1e-3, 0.01, 7, 0, 1)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> list[Any]:
    """What has been measured; every measurement gives the same."""
    seen: list[Any] = []

    def measure(program: Program, fragment: Any, configuration: Any) -> Measurement:
        seen.append((fragment.signature, configuration))
        return Measurement(TIMING)

    monkeypatch.setattr(profiler, "measure_alone", measure)
    return seen


def layers(count: int = 5) -> tuple[Program, list[Any]]:
    """A chain of equal layers and its segments' bodies."""
    program = program_of(chain, *chain_arguments(layers=count))
    return program, [s.body for s in program.segments]


def test_equal_segments_are_measured_once(measured: list[Any]):
    program, bodies = layers()
    found = profile(program, bodies)
    kinds = {b.signature for b in bodies}
    assert len(kinds) < len(bodies)
    assert [s for s, _ in measured] == [*dict.fromkeys(b.signature for b in bodies)]
    assert (found.now, found.cached) == (len(kinds), 0)


def test_a_second_run_measures_nothing(measured: list[Any]):
    program, bodies = layers()
    first = profile(program, bodies)
    del measured[:]
    second = profile(program, bodies)
    assert measured == []
    assert (second.now, second.cached) == (0, first.now)
    assert second.measurements == first.measurements


def test_every_configuration_and_none_silently(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch
):
    program, bodies = layers()
    every = profile(program, bodies, all_configurations=True)
    assert len(every.measurements) > len({b.signature for b in bodies})
    assert sum(every.pruned.values()) == 0
    monkeypatch.setattr(profiler, "MOST_CONFIGURATIONS", 2)
    fewer = profile(program, bodies, all_configurations=True)
    left = len(every.measurements) - len(fewer.measurements)
    assert sum(fewer.pruned.values()) == left > 0
    assert f"{left} more configurations of" in str(fewer)


def test_an_interrupted_run_goes_on(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch
):
    program, bodies = layers()
    keep = profiler.measure_alone

    def interrupt(*args: Any) -> Any:
        if len(measured) == 2:
            raise KeyboardInterrupt
        return keep(*args)

    monkeypatch.setattr(profiler, "measure_alone", interrupt)
    with pytest.raises(KeyboardInterrupt):
        profile(program, bodies)
    monkeypatch.setattr(profiler, "measure_alone", keep)
    found = profile(program, bodies)
    assert found.cached == 2
    assert len(measured) == len({b.signature for b in bodies})


def test_no_time_left(measured: list[Any]):
    program, bodies = layers()
    found = profile(program, bodies, time_limit=-1)
    assert measured == []
    assert found.failures() == {"there was no time left": found.now}
    # It is measured when there is time.
    assert profile(program, bodies).failures() == {}


def test_what_did_not_fit_is_tried_again(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch
):
    program, bodies = layers()
    reason = "it does not fit into memory alone"
    full = Measurement(None, reason)
    monkeypatch.setattr(profiler, "measure_alone", lambda *a: full)
    found = profile(program, bodies)
    assert found.failures() == {reason: found.now}
    assert f"{found.now} not timed: {reason}\n" in str(found)
    assert profile(program, bodies).cached == 0


def test_what_may_not_fail_again_is_tried_again(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch
):
    program, bodies = layers()
    odd = Measurement(None, "it cannot run alone (TypeError: odd)")
    monkeypatch.setattr(profiler, "measure_alone", lambda *a: odd)
    profile(program, bodies)
    assert profile(program, bodies).cached == 0


def test_the_time_of_a_call_is_kept(own_cache: Path):
    profiler._call_seconds.cache_clear()
    first = profiler._call_seconds()
    profiler._call_seconds.cache_clear()
    assert profiler._call_seconds() == first > 0


def test_a_step_that_fits_is_not_timed(measured: list[Any]):
    step = autotm.jit(chain, budget="100GiB", measure=True)
    plan = step.plan(*chain_arguments(layers=6))
    assert plan.is_untouched
    assert measured == []


def test_a_step_runs_whatever_fails(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **options: Any) -> Any:
        raise RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr("autotm_jax.profile.transfers._time", refuse)
    monkeypatch.setattr("autotm_jax.profile.estimate.profile", refuse)
    args = chain_arguments(layers=6, width=64, batch=256)
    step = autotm.jit(chain, budget="min", measure=True)
    with pytest.warns(autotm.AutoTMWarning) as said:
        plan = step.plan(*args)
    texts = sorted(str(w.message) for w in said)
    assert texts[0].startswith(
        "Copies to the host and back could not be timed (Runtime"
    )
    assert texts[1] == (
        "The step's segments could not be timed (RuntimeError: RESOURCE_EXHAUSTED), so "
        "they are priced by the description of the nearest machine. measure=False does "
        "so without trying."
    )
    assert plan.status is autotm.Status.OPTIMAL
    assert plan.costs is not None and not plan.costs.is_measured


def test_a_damaged_entry_is_measured_again(measured: list[Any], own_cache: Path):
    program, bodies = layers()
    profile(program, bodies)
    for path in own_cache.glob("time/*/*.json"):
        path.write_text('{"timing": {"seconds": "soon"}}')
    assert profile(program, bodies).now > 0


def test_a_bar_on_request(measured: list[Any], capsys: pytest.CaptureFixture[str]):
    program, bodies = layers()
    profile(program, bodies[:1], progress=True)
    profile(program, bodies, progress=True)
    shown = capsys.readouterr().err
    assert "timing segments (0 cached)" in shown
    assert "timing segments (1 cached)" in shown
    profile(program, bodies, progress=False)
    assert capsys.readouterr().err == ""


def test_what_is_lost_in_a_call_is_not_a_time():
    program, bodies = layers()
    key = (bodies[0].signature, ON_DEVICE)

    def seconds(taken: float, call: float, device: str) -> float | None:
        timing = Timing(taken, 0.0, 7, 0, 1)
        found = Profile(device, call, {key: Measurement(timing)}, 1, 0)
        return found.seconds(bodies[0])

    assert seconds(1e-3, 1e-5, "cpu x") == pytest.approx(1e-3 - 1e-5)
    assert seconds(1e-3, 1e-5, "NVIDIA H100") == 1e-3
    assert seconds(1e-5, 1e-5, "NVIDIA H100") is None
    lost = Profile("x", 1e-3, {key: Measurement(TIMING)}, 1, 0)
    assert "too short to be told from a call: 1 kinds" in str(lost)


def test_measured_costs(measured: list[Any]):
    program, bodies = layers()
    costs = estimate_costs(program, autotm.target(), measured=True)
    assert costs.is_measured
    for cost in costs.segments:
        assert cost.seconds == pytest.approx(TIMING.seconds, rel=0.05)
    assert costs.time_source.startswith("measured on cpu")
    assert all(c.seconds > 0 for c in costs.recomputations.values())
    modelled = estimate_costs(program, autotm.target())
    assert not modelled.is_measured
    assert modelled.time_source.endswith("modelled")


def test_what_was_not_timed_is_scaled(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch
):
    program, bodies = layers()
    modelled = estimate_costs(program, autotm.target()).segments
    untimed = bodies[-1].signature

    def measure(program: Program, fragment: Any, configuration: Any) -> Measurement:
        if fragment.signature == untimed:
            return Measurement(None, "it returned NaN for random inputs")
        return Measurement(TIMING)

    monkeypatch.setattr(profiler, "measure_alone", measure)
    found = estimate_costs(program, autotm.target(), measured=True).segments
    pairs = list(zip(found, modelled, strict=True))
    timed = [p for p, b in zip(pairs, bodies, strict=True) if b.signature != untimed]
    assert found[-1].source == "scaled roofline"
    assert all(f.source == "measured" for f, _ in timed)
    assert all(m.source == "roofline" for m in modelled)
    ratio = sum(f.seconds for f, _ in timed) / sum(m.seconds for _, m in timed)
    assert found[-1].seconds == pytest.approx(ratio * modelled[-1].seconds)


def test_what_was_not_timed_is_listed_in_the_report(
    measured: list[Any], monkeypatch: pytest.MonkeyPatch
):
    reason = "it returned NaN for random inputs"
    nothing = Measurement(None, reason)
    monkeypatch.setattr(profiler, "measure_alone", lambda *a: nothing)
    step = autotm.jit(chain, budget="min", measure=True)
    plan = step.plan(*chain_arguments(layers=6, width=64, batch=256))
    assert plan.costs is not None
    assert plan.costs.not_timed == {reason: plan.costs.not_timed[reason]}
    line = f"{plan.costs.not_timed[reason]} kinds: {reason}; priced by roofline"
    assert line in str(plan)


def test_a_plan_from_measurements(own_cache: Path):
    args = chain_arguments(layers=6, width=64, batch=256)
    step = autotm.jit(chain, budget="min", measure=True)
    plan = step.plan(*args)
    assert plan.costs is not None and plan.costs.is_measured
    assert "modelled from measured segments" in str(plan)
    assert plan.machine is not None and "copies measured" in plan.machine.source
    assert jnp.allclose(step(*args), jax.jit(chain)(*args), rtol=1e-5)


def test_measuring_needs_the_device():
    text = (
        "measure=True times the step on its target, and 'h100-sxm' is not here. Leave "
        "measure out, or run where that device is."
    )
    with pytest.raises(autotm.TargetError, match=text):
        autotm.jit(chain, target="h100-sxm", measure=True)
