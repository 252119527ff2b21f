"""Steps on the devices of two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from autotm_jax import shared
from autotm_jax.candidate import Candidate


ROOT = Path(__file__).parent.parent

# Three steps of a model whose state is spread over four devices, in any number of
# processes; prints a line of JSON.
PROGRAM = """
import dataclasses, hashlib, json, sys, warnings
import jax

number, count, port, budget = sys.argv[1:]
number, count = int(number), int(count)
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, number)
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import autotm_jax as autotm
from benchmarks.workloads import gpt

warnings.simplefilter("ignore", autotm.AutoTMWarning)
mesh = Mesh(np.array(jax.devices()), ("data",))

def put(leaf):
    whole = np.asarray(leaf)
    spec = PartitionSpec("data") if whole.ndim and whole.shape[0] % 4 == 0 else None
    sharding = NamedSharding(mesh, spec or PartitionSpec())
    return jax.make_array_from_callback(whole.shape, sharding, lambda i: whole[i])

workload = gpt.workload(dataclasses.replace(gpt.TINY, batch=4), "gpt")
state, batch = jax.tree.map(put, workload.make(0))
budget = budget if budget == "min" else float(budget)
step = autotm.jit(workload.step, budget=budget, donate_argnums=0)
losses = []
try:
    for _ in range(3):
        state, loss = step(state, batch)
        losses.append(float(loss))
    schedule = step.plan(state, batch).schedule
    said = {"losses": losses, "copies": schedule.copies}
    said["plan"] = hashlib.sha256(repr(schedule).encode()).hexdigest()
except autotm.AutoTMError as error:
    said = {"error": str(error)}
print("SAID", json.dumps(said))
"""


def run(budgets: list[str], cache: Path) -> list[dict[str, Any]]:
    """What the processes say, one for each budget."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    count = len(budgets)
    flags = f"--xla_force_host_platform_device_count={4 // count}"
    started = []
    for number, budget in enumerate(budgets):
        # Caches are those of different hosts.
        own = {"XLA_FLAGS": flags, "AUTOTM_JAX_CACHE": str(cache / str(number))}
        arguments = [str(number), str(count), port, budget]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                cwd=ROOT,
                env={**os.environ, **own, "JAX_PLATFORMS": "cpu"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    out = []
    for process in started:
        text, _ = process.communicate(timeout=300)
        lines = [line for line in text.splitlines() if line.startswith("SAID ")]
        assert lines, text
        out.append(json.loads(lines[0].removeprefix("SAID ")))
    return out


def test_two_processes_have_one_plan_and_the_values_of_one(tmp_path: Path):
    first, second = run(["min", "min"], tmp_path)
    assert first == second
    assert first["copies"] > 0
    (alone,) = run(["min"], tmp_path)
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    assert first["plan"] == alone["plan"]


def test_processes_that_ask_for_different_plans_are_told(tmp_path: Path):
    for said in run(["min", "0.5"], tmp_path):
        assert said["error"].startswith(
            "Process 1 would run this step by another plan than process 0."
        )


def test_other_processes_are_told_why_the_first_could_not_plan(
    monkeypatch: pytest.MonkeyPatch,
):
    said: list[Any] = []

    def told(mine: Any) -> Any:  # as from process to process: what the first says
        if jax.process_index() == 0:
            said.append(json.loads(json.dumps(mine)))
        return said[-1]

    def fail(self: Candidate, limit: int, *rest: Any) -> Any:
        assert jax.process_index() == 0  # only the first one searches
        raise ValueError("x" * limit)

    monkeypatch.setattr(shared, "_told", told)
    monkeypatch.setattr(Candidate, "within", fail)
    candidate = object.__new__(shared.SharedCandidate)
    for limit, letters in ((3, "xxx"), (1000, "x" * (300 - len("ValueError: ")))):
        for process in (0, 1):
            monkeypatch.setattr(jax, "process_index", lambda number=process: number)
            with pytest.raises(RuntimeError) as caught:
                candidate.within(limit)
            text = f"the first process could not plan (ValueError: {letters})"
            assert str(caught.value) == text
