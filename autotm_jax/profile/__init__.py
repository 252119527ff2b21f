"""What segments cost: measured or modelled seconds, workspace from XLA, a cache."""

from . import cache as cache
from .costs import Cost as Cost
from .costs import Costs as Costs
from .costs import Streaming as Streaming
from .estimate import estimate_costs as estimate_costs
from .overwriting import Changes as Changes
from .overwriting import as_planned as as_planned
from .overwriting import recomputations_apart as recomputations_apart
from .present import machine as machine
from .present import with_measured_link as with_measured_link
from .profiler import Profile as Profile
from .profiler import profile as profile
from .roofline import register_flops as register_flops
from .transfers import Transfers as Transfers
from .transfers import measure_transfers as measure_transfers
