"""Boolean programs over tensors and segments. This package knows nothing of JAX."""

from .checker import Replay as Replay, replay as replay
from .greedy import greedy as greedy
from .improve import improve as improve, repair as repair
from .joint import (
    JointProgram as JointProgram,
    Solution as Solution,
    SolverOptions as SolverOptions,
    Status as Status,
)
from .heap import packed_bytes as packed_bytes
from .policies import offload_everything as offload_everything
from .problem import (
    Link as Link,
    Problem as Problem,
    Recipe as Recipe,
    Tensor as Tensor,
)
from .schedule import (
    Fetch as Fetch,
    Recompute as Recompute,
    Schedule as Schedule,
    Store as Store,
)
