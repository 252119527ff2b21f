"""Boolean programs over tensors and segments. This package knows nothing of JAX."""

from .alternatives import (
    Alternative as Alternative,
)
from .alternatives import (
    Decision as Decision,
)
from .alternatives import (
    Way as Way,
)
from .alternatives import (
    decisions as decisions,
)
from .asynchronous import AsynchronousProgram as AsynchronousProgram
from .checker import Replay as Replay
from .checker import replay as replay
from .deadline import Deadline as Deadline
from .greedy import greedy as greedy
from .heap import packed_bytes as packed_bytes
from .improve import anneal as anneal
from .improve import descend as descend
from .joint import JointProgram as JointProgram
from .largest_first import largest_first as largest_first
from .policies import (
    best_policy as best_policy,
)
from .policies import (
    offload_everything as offload_everything,
)
from .policies import (
    recompute_everything as recompute_everything,
)
from .polish import polish as polish
from .problem import (
    Carried as Carried,
)
from .problem import (
    Configuration as Configuration,
)
from .problem import (
    Crossing as Crossing,
)
from .problem import (
    Link as Link,
)
from .problem import (
    Problem as Problem,
)
from .problem import (
    Recipe as Recipe,
)
from .problem import (
    Tensor as Tensor,
)
from .problem import (
    Variant as Variant,
)
from .program import BooleanProgram as BooleanProgram
from .repack import repack as repack
from .schedule import (
    Fetch as Fetch,
)
from .schedule import (
    Pick as Pick,
)
from .schedule import (
    Recompute as Recompute,
)
from .schedule import (
    Schedule as Schedule,
)
from .schedule import (
    Store as Store,
)
from .schedule import (
    Stream as Stream,
)
from .shake import shake as shake
from .solution import (
    Formulation as Formulation,
)
from .solution import (
    Solution as Solution,
)
from .solution import (
    SolverOptions as SolverOptions,
)
from .solution import (
    Status as Status,
)
from .static import StaticProgram as StaticProgram
from .synchronous import SynchronousProgram as SynchronousProgram
from .tidy import tidy as tidy
from .uniform import uniform as uniform


PROGRAMS: dict[Formulation, type[BooleanProgram]] = {
    Formulation.STATIC: StaticProgram,
    Formulation.SYNCHRONOUS: SynchronousProgram,
    Formulation.ASYNCHRONOUS: AsynchronousProgram,
    Formulation.JOINT: JointProgram,
}
"""The program of each formulation."""
