"""Steps timed in turns."""

from typing import Any

import jax.numpy as jnp

from benchmarks.gpu.rounds import ROUNDS, SEED, WARM_UP, Timed, interleaved


class Clock:
    """A clock that steps move on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def step(self, name: str, seconds: float, calls: list[str]) -> Any:
        """A step that takes so long, and whose loss is how often the state was run."""

        def step(state: Any, batch: Any) -> Any:
            calls.append(name)
            self.now += seconds
            return state + 1, jnp.float32(state + batch)

        return step


def made(seed: int) -> tuple[int, int]:
    """A state and a batch."""
    assert seed == SEED
    return 0, 10


def test_programs_take_turns():
    clock, calls = Clock(), []
    programs = {name: clock.step(name, s, calls) for name, s in [("a", 0.3), ("b", 9)]}
    seen: list[tuple[str, int]] = []
    found = interleaved(
        programs,
        made,
        seen=lambda name, timed: seen.append((name, len(timed.samples))),
        clock=clock,
    )
    # As many steps as fill a second, at least three.
    turn = ["a"] * (WARM_UP + 3) + ["b"] * (WARM_UP + 3)
    assert calls == turn * ROUNDS
    assert seen == [(n, 3 * k) for k in range(1, ROUNDS + 1) for n in ("a", "b")]
    assert max(abs(s - 0.3) for s in found["a"].samples) < 1e-9
    # Of the first round only, from the same state each time.
    assert found["a"].losses == [10, 11, 12, 13, 14]


def test_short_steps_run_more_often():
    clock, calls = Clock(), []
    quick = {"a": clock.step("a", 0.2, calls)}
    assert len(interleaved(quick, made, 1, clock=clock)["a"].samples) == 5
    quick = {"a": clock.step("a", 1e-3, calls)}
    assert len(interleaved(quick, made, 1, clock=clock)["a"].samples) == 10


def test_one_that_fails_has_no_more_turns():
    clock, calls = Clock(), []

    def fails(state: Any, batch: Any) -> Any:
        calls.append("b")
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand so on")

    programs = {"b": fails, "a": clock.step("a", 1.0, calls)}
    found = interleaved(programs, made, clock=clock)
    assert calls.count("b") == 1
    reason = "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert found["b"] == Timed([], [], reason)
    assert len(found["a"].samples) == 3 * ROUNDS


def test_no_round_begins_without_time():
    clock, calls = Clock(), []
    programs = {"a": clock.step("a", 1.0, calls)}
    found = interleaved(programs, made, left=lambda: -1.0, clock=clock)
    assert len(found["a"].samples) == 3
