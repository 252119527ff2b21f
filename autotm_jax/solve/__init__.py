"""Boolean programs over tensors and segments. This package knows nothing of JAX."""

from .schedule import (
    Fetch as Fetch,
    Recompute as Recompute,
    Schedule as Schedule,
    Store as Store,
)
