"""What XLA made of a step: memory, and proof that a plan was realised."""

from .absent import mark_on_host as mark_on_host
from .assignment import Assignment as Assignment
from .assignment import Uncoded as Uncoded
from .assignment import assign as assign
from .collectives import Collectives as Collectives
from .collectives import collectives as collectives
from .lifetimes import Buffer as Buffer
from .lifetimes import Lifetimes as Lifetimes
from .memory import (
    device_bytes as device_bytes,
)
from .memory import (
    host_bytes as host_bytes,
)
from .memory import (
    temp_bytes as temp_bytes,
)
from .options import WITHOUT_TRITON as WITHOUT_TRITON
from .options import compile_not_to_run as compile_not_to_run
from .options import compiler_options as compiler_options
from .verify import Evidence as Evidence
from .verify import examine as examine
