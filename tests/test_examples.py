"""The examples train as `jax.jit` does."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import jax
import pytest

from examples import training, with_optax


@pytest.mark.parametrize("framework", ["flax", "equinox"])
def test_a_framework_trains_with_its_state_on_the_host(
    framework: str, capsys: pytest.CaptureFixture[str]
):
    example: Any = importlib.import_module(f"examples.with_{framework}")
    plain, ours = training.compare(example.train_step, example.init, steps=12)
    assert len(ours) == 12 and ours[-1] < 0.9 * ours[0]
    assert ours == pytest.approx(plain, rel=1e-4)
    count, _, rest = capsys.readouterr().out.splitlines()[-1].partition(" ")
    assert int(count) > 50 and rest.endswith("are in host memory.")


def test_a_hundred_steps_with_a_checkpoint_in_the_middle(tmp_path: Path):
    kinds: list[str] = []

    def halfway(state: Any) -> Any:
        leaves = jax.tree.leaves(state)
        kinds.extend(leaf.sharding.memory_kind for leaf in leaves)
        read = with_optax.through(tmp_path / "state", state)
        assert jax.tree.structure(read) == jax.tree.structure(state)
        return read

    example = with_optax.train_step, with_optax.init
    plain, ours = training.compare(*example, steps=100, halfway=halfway)
    assert kinds.count("pinned_host") > 30  # written from there
    assert len(ours) == 100
    assert ours == pytest.approx(plain, rel=1e-4)
