"""What segments cost: seconds from a roofline, workspace from XLA, a cache."""

from . import cache as cache
from .costs import Cost as Cost
from .costs import Costs as Costs
from .estimate import estimate_costs as estimate_costs
from .estimate import joined_bytes as joined_bytes
from .roofline import register_flops as register_flops
