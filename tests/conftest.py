"""Every test runs on the CPU, with a cache of its own that starts out empty."""

import atexit
import contextlib
import os
import shutil
import tempfile
import warnings

import pytest
from hypothesis import settings


os.environ["JAX_PLATFORMS"] = "cpu"
# Code need not be fast here: it runs once. Nothing above LLVM is changed by these.
_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# Steps on a mesh have four devices.
_FLAGS += " --xla_force_host_platform_device_count=4"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()
# Measured times differ from run to run: only the tests of measuring measure.
os.environ["AUTOTM_JAX_MEASURE"] = "0"
# Under xdist the controller gets here first, and its workers inherit the directory.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["AUTOTM_JAX_CACHE"] = _directory = tempfile.mkdtemp(prefix="autotm-")
    atexit.register(shutil.rmtree, _directory, ignore_errors=True)

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tests")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache directory that nothing has been stored in."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("AUTOTM_JAX_CACHE", str(directory))
    return directory


@contextlib.contextmanager
def _warnings(action):
    # Imported once the environment is what it is to be.
    from autotm_jax import AutoTMWarning  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter(action, AutoTMWarning)
        yield


@pytest.fixture
def quiet():
    """What a CPU says about budgets, and everything else but errors, is silenced."""
    with _warnings("ignore"):
        yield


@pytest.fixture
def strict():
    """A step that cannot be planned is an error."""
    with _warnings("error"):
        yield
