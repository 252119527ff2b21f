import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import autotm_jax as autotm
from autotm_jax.machine import describe
from autotm_jax.profile import measure_transfers, present, transfers
from autotm_jax.profile.timing import Timing
from autotm_jax.profile.transfers import COMPILED, EAGER, SIZES, Fit, fit


@given(st.floats(1e-7, 1e-3), st.floats(1e8, 1e12))
def test_a_straight_line_is_found(latency: float, bandwidth: float):
    found = fit({n: latency + n / bandwidth for n in SIZES})
    assert found.error < 1e-6
    assert found.seconds(2**30) == pytest.approx(latency + 2**30 / bandwidth, rel=1e-6)


def test_neither_part_is_negative():
    found = fit({2**20: 1e-3, 2**22: 1e-3, 2**24: 1e-3})
    assert found == Fit(pytest.approx(1e-3), math.inf, pytest.approx(0, abs=1e-9))
    found = fit({2**20: 1e-4, 2**24: 1e-2})
    assert found.latency == 0


def test_the_error_is_told():
    found = fit({2**20: 1e-3, 2**21: 2e-3, 2**22: 8e-3})
    errors = [abs(found.seconds(n) / t - 1) for n, t in ((2**20, 1e-3), (2**22, 8e-3))]
    assert found.error >= max(errors) - 1e-9 > 0.1


def test_small_copies_are_not_what_is_fitted():
    line = {2**20: 1e-4, 2**22: 4e-4, 2**24: 16e-4}
    assert fit({4096: 1.0, **line}).bandwidth == pytest.approx(2**20 / 1e-4)
    # Unless there is nothing else.
    assert fit({4096: 1e-5, 8192: 2e-5}).bandwidth == pytest.approx(4096 / 1e-5)


def test_copies_of_this_machine(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = (4096, 2**20, 2**22)
    found = measure_transfers(sizes, progress=False)
    assert set(found.timings) == set(COMPILED + EAGER) == set(found.fits)
    for by_size in found.timings.values():
        assert set(by_size) == set(sizes)
        assert all(t.seconds > 0 for t in by_size.values())
    text = str(found)
    assert "(one memory on a CPU: these are copies within it)" in text
    assert text.count("GB/s") == 5
    # The second time nothing is timed.
    monkeypatch.setattr(transfers, "_time", None)
    assert measure_transfers(sizes, progress=False) == found


def test_sizes_that_do_not_fit_are_left_out(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transfers, "free_bytes", lambda device: 10 * 2**21)
    monkeypatch.setattr(transfers, "_time", lambda d, n: Timing(n / 1e9, 0, 7, 0, 1))
    found = measure_transfers(SIZES, ("d2h",))
    assert max(found.timings["d2h"]) == 2**20
    assert found.fits["d2h"].bandwidth == pytest.approx(1e9)


def test_a_damaged_entry_is_measured_again(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transfers, "_time", lambda d, n: Timing(n / 1e9, 0, 7, 0, 1))
    found = measure_transfers((2**20, 2**22), COMPILED)
    (path,) = own_cache.glob("transfers/*/*.json")
    path.write_text(json.dumps({"device": "x", "timings": {"d2h": {"many": {}}}}))
    assert measure_transfers((2**20, 2**22), COMPILED) == found


def linked(d2h: float, h2d: float, both: float) -> Any:
    """Transfers of these bandwidths."""
    fits = {"d2h": Fit(1e-6, d2h, 0), "h2d": Fit(2e-6, h2d, 0), "both": Fit(0, both, 0)}
    return transfers.Transfers("x", {}, fits)


@pytest.mark.parametrize(("both", "duplex"), [(5e9, 20e9), (25e9, 25e9), (40e9, 30e9)])
def test_both_ways_at_once(monkeypatch: pytest.MonkeyPatch, both: float, duplex: float):
    found = linked(10e9, 20e9, both)
    monkeypatch.setattr(present, "measure_transfers", lambda *a, **k: found)
    machine = present.with_measured_link(describe("h100-sxm"))
    assert (machine.d2h_bandwidth, machine.h2d_bandwidth) == (10e9, 20e9)
    assert machine.duplex_bandwidth == duplex
    assert machine.transfer_latency == 2e-6
    assert machine.source == "described, copies measured"
    assert machine.sources["d2h_bandwidth"].startswith("measured on this device")
    assert machine.flops == describe("h100-sxm").flops


def test_without_host_memory_nothing_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(present, "measure_transfers", None)
    machine = dataclasses.replace(describe("cpu"), has_host_memory=False)
    assert present.with_measured_link(machine) == machine


def test_the_machine_that_is_here(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(present, "_SIDE", {"cpu": 64})
    monkeypatch.setattr(present, "_STREAMED_BYTES", {"cpu": 2**16})
    monkeypatch.setattr(transfers, "_time", lambda d, n: Timing(n / 1e9, 0, 7, 0, 1))
    machine = autotm.machine(progress=False)
    assert machine.source == "measured"
    assert machine.d2h_bandwidth == pytest.approx(1e9)
    assert machine.flops["float32"] > 0 and machine.host_bytes > 2**20
    for name in ("device_bandwidth", "launch_overhead", "host_bytes", "flops"):
        assert machine.sources[name].startswith("measured on this cpu")
    # The second time nothing is timed.
    monkeypatch.setattr(present, "measure", None)
    assert autotm.machine(progress=False) == machine


def test_a_device_that_is_full(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(present, "_SIDE", {"cpu": 64})
    monkeypatch.setattr(present, "free_bytes", lambda device: 0)
    monkeypatch.setattr(transfers, "_time", lambda d, n: Timing(n / 1e9, 0, 7, 0, 1))
    machine = autotm.machine(progress=False)
    nearest = describe("cpu")
    assert machine.device_bandwidth == nearest.device_bandwidth
    assert machine.sources["device_bandwidth"] == nearest.sources["device_bandwidth"]
