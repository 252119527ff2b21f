"""Steps on simulated machines: plans, and what one would do without a plan.

Everything here is modelled. This package knows nothing of JAX.
"""

from .kernels import (
    Kernel as Kernel,
)
from .kernels import (
    Memories as Memories,
)
from .outcome import Outcome as Outcome
