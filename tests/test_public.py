import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import autotm_jax as autotm


NAMES = [
    "AutoTMError",
    "AutoTMWarning",
    "BudgetError",
    "Config",
    "ConfigError",
    "InfeasibleBudget",
    "Formulation",
    "Kind",
    "Machine",
    "Plan",
    "PlanFileError",
    "PlanNotRealised",
    "Point",
    "Realised",
    "ReportError",
    "SolverError",
    "SolverOptions",
    "Status",
    "Step",
    "Sweep",
    "Target",
    "TargetError",
    "VariantError",
    "config",
    "device_bytes",
    "host_bytes",
    "jit",
    "known_machines",
    "machine",
    "on_device",
    "register_flattening",
    "register_flops",
    "register_kind",
    "sweep",
    "target",
    "variants",
]


def test_the_public_names():
    public = {
        name
        for name, thing in vars(autotm).items()
        if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert public == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_docstring(name: str):
    thing = getattr(autotm, name)
    doc = inspect.getdoc(thing)
    assert doc
    if inspect.isfunction(thing) and "**Arguments:**" in doc:
        for argument in inspect.signature(thing).parameters:
            assert f"`{argument}`" in doc or f"`**{argument}`" in doc, argument
    if dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            assert f"`{field.name}`" in doc, field.name


def test_the_methods_of_a_step_have_docstrings():
    for name, method in vars(autotm.Step).items():
        if not name.startswith("_") and callable(method):
            assert inspect.getdoc(method), name


def test_the_version():
    assert autotm.__version__[0].isdigit()


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("Error")])
def test_errors_have_one_base(name: str):
    assert issubclass(getattr(autotm, name), autotm.AutoTMError)


_IMPORT = """
import jax._src.xla_bridge as bridge
import autotm_jax
autotm_jax.jit(lambda x: x, budget="6GiB", target="h100-sxm")
assert not bridge._backends, list(bridge._backends)
"""


def test_importing_initialises_no_backend():
    done = subprocess.run([sys.executable, "-c", _IMPORT], timeout=120)
    assert done.returncode == 0


def test_nothing_is_printed_by_default(tmp_path: Path):
    # Imported before JAX, as sorted imports are.
    code = (
        "import autotm_jax, jax, jax.numpy as jnp; "
        "autotm_jax.jit(lambda x: (x @ x).sum(), budget='1GiB')(jnp.ones((8, 8)))"
    )
    own = {"JAX_PLATFORMS": "cpu", "AUTOTM_JAX_CACHE": str(tmp_path)}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=kept | own, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
