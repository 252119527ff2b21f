"""Steps on simulated machines: plans, and what one would do without a plan.

Everything here is modelled. This package knows nothing of JAX.
"""

from .checkpoint import dots_saveable as dots_saveable
from .checkpoint import nothing_saveable as nothing_saveable
from .engine import Run as Run
from .engine import Span as Span
from .engine import Task as Task
from .engine import run_tasks as run_tasks
from .extremes import all_fast as all_fast
from .extremes import all_slow as all_slow
from .first_touch import first_touch as first_touch
from .first_touch import first_touched as first_touched
from .kernels import Kernel as Kernel
from .kernels import Pass as Pass
from .kernels import placements as placements
from .lanes import Engines as Engines
from .lanes import Lane as Lane
from .managed import managed_memory as managed_memory
from .memories import OPTANE as OPTANE
from .memories import STREAMING_STORES as STREAMING_STORES
from .memories import Memories as Memories
from .memory_mode import Cache as Cache
from .memory_mode import Traffic as Traffic
from .memory_mode import memory_mode as memory_mode
from .oracle import oracle as oracle
from .outcome import Outcome as Outcome
from .placed import placed as placed
from .placed import planned as planned
from .playing import Simulation as Simulation
from .playing import engines_of as engines_of
from .playing import simulate as simulate
from .pool import Pool as Pool
from .vdnn import vdnn as vdnn
from .xla_remat import xla_rematerialisation as xla_rematerialisation
