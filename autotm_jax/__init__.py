"""`jax.jit` with a memory budget: automatic tensor movement for JAX."""

import importlib.metadata

# Before anything of jaxlib: JAX tells XLA not to log what is no warning.
import jax as _jax  # noqa: F401

from .compile import device_bytes as device_bytes
from .compile import host_bytes as host_bytes
from .config import Config as Config
from .config import config as config
from .errors import (
    AutoTMError as AutoTMError,
)
from .errors import (
    AutoTMWarning as AutoTMWarning,
)
from .errors import (
    BudgetError as BudgetError,
)
from .errors import (
    ConfigError as ConfigError,
)
from .errors import (
    InfeasibleBudget as InfeasibleBudget,
)
from .errors import (
    PlanFileError as PlanFileError,
)
from .errors import (
    PlanNotRealised as PlanNotRealised,
)
from .errors import (
    ReportError as ReportError,
)
from .errors import (
    SolverError as SolverError,
)
from .errors import (
    TargetError as TargetError,
)
from .errors import (
    VariantError as VariantError,
)
from .jit import jit as jit
from .machine import (
    Machine as Machine,
)
from .machine import (
    Target as Target,
)
from .machine import (
    known_machines as known_machines,
)
from .machine import (
    target as target,
)
from .plan import Plan as Plan
from .plan import Realised as Realised
from .profile import machine as machine
from .profile import register_flops as register_flops
from .residence import on_device as on_device
from .solve import Formulation as Formulation
from .solve import SolverOptions as SolverOptions
from .solve import Status as Status
from .step import Step as Step
from .sweep import Point as Point
from .sweep import Sweep as Sweep
from .sweep import sweep as sweep
from .trace import (
    Kind as Kind,
)
from .trace import (
    register_flattening as register_flattening,
)
from .trace import (
    register_kind as register_kind,
)
from .trace import (
    variants as variants,
)


try:
    __version__ = importlib.metadata.version("autotm-jax")
except importlib.metadata.PackageNotFoundError:  # imported from a checkout
    __version__ = "0+checkout"
