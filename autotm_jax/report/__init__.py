"""Plans for people to read."""

from .explain import explanation as explanation
from .text import summary as summary
