"""A time limit that all parts of a search keep together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Deadline:
    """The end of a time limit that begins now.

    **Arguments:**

    - `seconds`: of the limit.
    """

    def __init__(self, seconds: float):
        self._start, self._seconds = time.perf_counter(), seconds

    def taken(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._start

    def left(self) -> float:
        """Seconds until it has passed, none from then on."""
        return max(0.0, self._seconds - self.taken())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile does not count."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - start
