"""Machines: what they cost, and compiling for one that is not here."""

from .machine import (
    Machine as Machine,
    describe as describe,
    known_machines as known_machines,
    machine_of as machine_of,
)
from .target import Target as Target, target as target
