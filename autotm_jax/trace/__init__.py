"""From a jaxpr to a `Program`: flattening, materialisation, segments, liveness."""

from .bytes import axes_of as axes_of
from .bytes import nbytes_of as nbytes_of
from .conditionals import (
    as_it_is as as_it_is,
)
from .conditionals import (
    is_conditional as is_conditional,
)
from .conditionals import (
    with_branches as with_branches,
)
from .evaluate import evaluate as evaluate
from .evaluate import register_evaluation as register_evaluation
from .flat import Flat as Flat
from .flatten import (
    flatten as flatten,
)
from .flatten import (
    register_flattening as register_flattening,
)
from .fragments import LOCAL as LOCAL
from .fragments import planned_fragment as planned_fragment
from .fragments import recomputed_together as recomputed_together
from .fragments import single_equations as single_equations
from .layout import as_in_memory as as_in_memory
from .layout import from_memory as from_memory
from .layout import in_order as in_order
from .loops import Loop as Loop
from .loops import can_be_filled as can_be_filled
from .loops import repeats as repeats
from .loops import slice_of as slice_of
from .loops import why_whole as why_whole
from .nest import Scope as Scope
from .partial import summed_axes as summed_axes
from .postpone import Order as Order
from .primitives import RESHARDING as RESHARDING
from .primitives import VIEWS as VIEWS
from .primitives import Kind as Kind
from .primitives import register_kind as register_kind
from .program import (
    Branch as Branch,
)
from .program import (
    Equation as Equation,
)
from .program import (
    Fragment as Fragment,
)
from .program import (
    Program as Program,
)
from .program import (
    Segment as Segment,
)
from .program import (
    Value as Value,
)
from .program import (
    short_source as short_source,
)
from .segments import (
    backward_segments as backward_segments,
)
from .segments import (
    build_program as build_program,
)
from .sharding import Divide as Divide
from .sharding import Shardings as Shardings
from .sharding import held as held
from .sharding import large_values as large_values
from .sharding import shardings_of as shardings_of
from .sharding import stacked as stacked
from .sharding import with_all_values as with_all_values
from .variants import (
    VARIANTS as VARIANTS,
)
from .variants import (
    Choice as Choice,
)
from .variants import (
    Planned as Planned,
)
from .variants import (
    variants as variants,
)
