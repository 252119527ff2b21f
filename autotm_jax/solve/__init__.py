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
from .checker import Replay as Replay
from .checker import replay as replay
from .greedy import greedy as greedy
from .heap import packed_bytes as packed_bytes
from .improve import anneal as anneal
from .improve import descend as descend
from .joint import (
    JointProgram as JointProgram,
)
from .joint import (
    Solution as Solution,
)
from .joint import (
    SolverOptions as SolverOptions,
)
from .joint import (
    Status as Status,
)
from .policies import offload_everything as offload_everything
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
from .repack import repack as repack
from .schedule import (
    Fetch as Fetch,
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
