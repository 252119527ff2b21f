from pathlib import Path
from typing import Any

import jax
import pytest

from autotm_jax.calibration import Calibration, calibrate, program_of
from autotm_jax.profile.timing import Timing

from .steps import chain, chain_arguments


def test_the_segments_against_the_step(own_cache: Path):
    x, weights = chain_arguments(layers=3, width=64, batch=64)
    shapes = jax.eval_shape(lambda: (x, weights))
    found, whole = calibrate(chain, shapes)
    assert found.failures() == {}
    assert whole.step is not None and whole.ratio is not None
    assert whole.ratio == whole.segments / whole.step.seconds > 0
    assert whole.untouched is not None and whole.untouched.seconds > 0


def test_text():
    step, untouched = Timing(2e-3, 0, 7, 0, 1), Timing(4e-3, 0, 7, 0, 1)
    assert str(Calibration(step, untouched, 1.5e-3)) == (
        "segments together 1.50 ms, 0.750 of the step cut at each: 2.00 ms measured "
        "(4.00 ms as traced)"
    )


def test_a_step_that_does_not_run(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any) -> Any:
        raise RuntimeError("out of luck\nand more")

    monkeypatch.setattr("autotm_jax.calibration._concrete", refuse)
    _, whole = calibrate(chain, chain_arguments(layers=2))
    assert whole.ratio is None
    assert str(whole).endswith("the step was not timed: RuntimeError: out of luck")


def test_the_program_of_a_step():
    args = chain_arguments(layers=2)
    program = program_of(chain, args, donate_argnums=(0,))
    assert program.donated[0] and not any(program.donated[1:])
    assert len(program.segments) >= 2
