"""From a program and a schedule to a function with transfers."""

from .emit import emit as emit
from .timetable import carried_on_host as carried_on_host
from .unread import Unread as Unread
from .unread import unread as unread
