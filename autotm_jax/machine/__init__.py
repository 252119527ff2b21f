"""Machines: what they cost, and compiling for one that is not here."""

from .host import PINNED_CAP as PINNED_CAP
from .host import physical_bytes as physical_bytes
from .host import pinned_bytes as pinned_bytes
from .host import with_lent_memory as with_lent_memory
from .machine import (
    Machine as Machine,
)
from .machine import (
    describe as describe,
)
from .machine import (
    known_machines as known_machines,
)
from .machine import (
    machine_of as machine_of,
)
from .target import Target as Target
from .target import target as target
