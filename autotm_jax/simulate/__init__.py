"""Steps on simulated machines: plans, and what one would do without a plan.

Everything here is modelled. This package knows nothing of JAX.
"""

from .checkpoint import dots_saveable as dots_saveable
from .checkpoint import nothing_saveable as nothing_saveable
from .engine import Run as Run
from .engine import Span as Span
from .engine import Task as Task
from .engine import run_tasks as run_tasks
from .kernels import (
    Kernel as Kernel,
)
from .kernels import (
    Memories as Memories,
)
from .lanes import Engines as Engines
from .lanes import Lane as Lane
from .managed import managed_memory as managed_memory
from .oracle import oracle as oracle
from .outcome import Outcome as Outcome
from .playing import Simulation as Simulation
from .playing import engines_of as engines_of
from .playing import simulate as simulate
from .vdnn import vdnn as vdnn
