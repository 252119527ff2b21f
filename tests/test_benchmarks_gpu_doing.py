"""What a process does for a task: here on JAX's CPU device, which runs and is timed."""

import dataclasses
from typing import Any

import pytest

import autotm_jax as autotm
from autotm_jax.machine import describe
from autotm_jax.profile import transfers
from autotm_jax.profile.timing import Timing
from benchmarks.gpu import doing, speeds
from benchmarks.gpu.cases import SMALL_CARD
from benchmarks.gpu.doing import NO_TIME
from benchmarks.gpu.row import Row, of_json
from benchmarks.gpu.stalls import Overlap
from benchmarks.gpu.tasks import Kind, Task
from benchmarks.gpu.ways import AT_FULL, AT_LOOSE, AT_TIGHT, PLAIN, REMAT
from benchmarks.gpu.worker import do, target_of


MACHINE = dataclasses.asdict(describe("cpu"))


def done(kind: Kind, case: str = "gpt-12", **known: Any) -> list[dict[str, Any]]:
    """What is said of a task on the CPU."""
    messages: list[dict[str, Any]] = []
    common = {"small": True, "platform": "cpu", "machine": MACHINE}
    do(Task(kind, case, **{**common, **known}), messages.append)
    return messages


def last_rows(messages: list[dict[str, Any]]) -> dict[str, Row]:
    """The last that is said of each way."""
    rows = [of_json(m["row"]) for m in messages if "row" in m]
    return {row.way: row for row in rows}


def test_steps_are_compiled_and_timed():
    ways = [PLAIN.name, REMAT.name, AT_LOOSE.name, AT_TIGHT.name]
    messages = done("times", ways=ways)
    assert messages[0] == {"batch": {"gpt-12": 4}}
    found = last_rows(messages)
    assert list(found) == ways
    plain = found[PLAIN.name]
    assert plain.seconds and plain.device_bytes
    for row in found.values():
        assert row.error == ""
        assert len(row.samples) >= 9
        assert row.modelled_seconds is not None and row.compile_seconds is not None
        assert row.plain_seconds == plain.seconds
        assert row.loss_difference is not None and row.loss_difference < 1e-4
        # Neither has a CPU.
        assert row.peak_bytes_in_use is row.stall_seconds is None
    assert plain.of_plain == 1 and plain.loss_difference == 0
    loose, tight = found[AT_LOOSE.name], found[AT_TIGHT.name]
    assert loose.status == "untouched" and loose.predicted_bytes is None
    assert loose.budget_bytes == int(1.2 * plain.device_bytes)
    assert tight.budget_bytes == int(0.6 * plain.device_bytes)
    assert tight.predicted_bytes and tight.simulated_seconds and tight.plan_seconds
    assert tight.unconstrained_seconds is not None
    # First what was compiled, all of it; then what was seen of each turn.
    order = [of_json(m["row"]) for m in messages if "row" in m]
    assert [row.way for row in order[:4]] == ways
    assert not any(row.samples for row in order[:4])
    assert all(row.samples for row in order[4:])


def test_a_way_that_fails_costs_its_row_only():
    found = last_rows(done("times", ways=[AT_FULL.name, PLAIN.name], batch=2))
    assert found[AT_FULL.name].error == (
        "ValueError: The budget of 'joint at full remat' is what 'checkpoint "
        "nothing_saveable' takes, and that did not compile: see its row for why."
    )
    assert found[PLAIN.name].samples and not found[PLAIN.name].error
    assert found[PLAIN.name].batch == 2


def test_what_xla_offloads_has_no_model():
    offload = "XLA offload at 0.6"
    found = last_rows(done("times", "adam-16", ways=[PLAIN.name, offload]))
    assert found[offload].samples and found[offload].error == ""
    assert found[offload].modelled_seconds is None
    assert found[PLAIN.name].modelled_seconds is not None


def test_what_a_profile_says(monkeypatch: pytest.MonkeyPatch):
    def profiled(run: Any) -> Overlap:
        run()
        return Overlap(8.0, 6.0, 4.0, 2.0)

    monkeypatch.setattr(doing, "profiled", profiled)
    (row,) = last_rows(done("times", "adam-16", ways=[PLAIN.name])).values()
    # Of a step; two were profiled.
    assert (row.kernel_seconds, row.copy_seconds) == (4.0, 3.0)
    assert (row.stall_seconds, row.idle_seconds) == (2.0, 1.0)

    def fails(run: Any) -> Overlap:
        raise RuntimeError("another profiler is running")

    monkeypatch.setattr(doing, "profiled", fails)
    (row,) = last_rows(done("times", "adam-16", ways=[PLAIN.name])).values()
    assert row.notes == (
        "there is no profile: RuntimeError: another profiler is running",
    )
    assert row.samples and not row.error


def test_the_peak_of_a_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doing, "memory_stats", lambda: {"peak_bytes_in_use": 99})
    (message,) = done("peak", "adam-16", ways=[PLAIN.name], batch=64)
    assert message == {"peak": {"key": ["adam-16", 64, PLAIN.name], "bytes": 99}}


def test_nothing_begins_without_time():
    messages = done("times", ways=[PLAIN.name], batch=2, seconds=1.0, estimate=2.0)
    (row,) = last_rows(messages).values()
    assert row.error == NO_TIME and row.device_bytes is None


def test_what_is_too_large_says_so():
    found = last_rows(done("times", "adam-16", ways=[PLAIN.name], batch=8192))
    (note,) = found[PLAIN.name].notes
    assert note == f"it takes more than the {SMALL_CARD >> 20} MiB that there are"


def test_the_largest_batch():
    (message,) = done("largest", "adam-16", ways=[PLAIN.name])
    found = message["largest"]
    assert (found["case"], found["way"]) == ("adam-16", PLAIN.name)
    assert found["limit"] == SMALL_CARD
    tried = found["tried"]
    assert tried[str(found["batch"])] <= SMALL_CARD
    assert len(tried) <= 3
    assert found["batch"] == max(int(b) for b, n in tried.items() if n <= SMALL_CARD)


def test_the_machine_is_measured(own_cache: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfers, "_time", lambda d, n: Timing(n / 1e9, 0, 7, 0, 1))
    monkeypatch.setattr(speeds, "SIDES", {"cpu": (32,), "gpu": ()})
    found: dict[str, Any] = {}
    for message in done("machine", machine=None):
        found |= message
    assert speeds.from_json(found["machine"]).source == "measured"
    assert found["machine"]["d2h_bandwidth"] == pytest.approx(1e9)
    products = {(p["dtype"], p["precision"]): p for p in found["products"]}
    assert len(products) == 5
    assert products["float32", "highest"]["flops"] > 0
    both = [c for c in found["copies"] if c["direction"] == "both"]
    assert both and all(c["bandwidth"] == pytest.approx(2e9) for c in both)


def test_a_dtype_that_does_not_work_is_said(monkeypatch: pytest.MonkeyPatch):
    def fails(*args: Any) -> Any:
        raise TypeError("no such product\nat all")

    monkeypatch.setattr(speeds, "measure", fails)
    found = speeds.products((8,))
    assert {entry["error"] for entry in found} == {"TypeError: no such product"}


def test_a_gpu_without_its_plugin():
    with pytest.raises(autotm.TargetError) as caught:
        target_of(Task("machine", "gpt-12", platform="gpu"))
    assert str(caught.value) == (
        "There is a GPU, but JAX runs on 'cpu'. Install its plugin (pip install "
        "'jax[cuda13]'), or compile for a GPU that is not here with --target h100-sxm."
    )
