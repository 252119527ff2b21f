"""Machines: what they cost, and compiling for one that is not here."""

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
