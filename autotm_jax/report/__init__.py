"""Plans for people to read."""

from .text import summary as summary
