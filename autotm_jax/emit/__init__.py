"""From a program and a schedule to a function with transfers."""

from .emit import emit as emit
