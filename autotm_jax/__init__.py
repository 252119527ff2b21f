"""`jax.jit` with a memory budget: automatic tensor movement for JAX."""

import importlib.metadata

from .compile import device_bytes as device_bytes, host_bytes as host_bytes
from .errors import (
    AutoTMError as AutoTMError,
    AutoTMWarning as AutoTMWarning,
    BudgetError as BudgetError,
    InfeasibleBudget as InfeasibleBudget,
    PlanNotRealised as PlanNotRealised,
    SolverError as SolverError,
    TargetError as TargetError,
)
from .jit import Step as Step, jit as jit
from .machine import (
    Machine as Machine,
    Target as Target,
    known_machines as known_machines,
    target as target,
)
from .plan import Plan as Plan, Realised as Realised
from .profile import register_flops as register_flops
from .solve import SolverOptions as SolverOptions, Status as Status
from .trace import (
    Kind as Kind,
    register_flattening as register_flattening,
    register_kind as register_kind,
)


try:
    __version__ = importlib.metadata.version("autotm-jax")
except importlib.metadata.PackageNotFoundError:  # imported from a checkout
    __version__ = "0+checkout"
