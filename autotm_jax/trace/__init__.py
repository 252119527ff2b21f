"""From a jaxpr to a `Program`: flattening, materialisation, segments, liveness."""

from .evaluate import evaluate as evaluate, register_evaluation as register_evaluation
from .flatten import (
    flatten as flatten,
    register_flattening as register_flattening,
)
from .primitives import Kind as Kind, register_kind as register_kind
from .program import (
    Equation as Equation,
    Fragment as Fragment,
    Program as Program,
    Segment as Segment,
    Value as Value,
)
from .segments import (
    LOCAL as LOCAL,
    build_program as build_program,
)
