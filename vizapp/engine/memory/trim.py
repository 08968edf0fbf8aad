"""Return freed memory to the system. glibc keeps it, and with jobs in many threads a server's memory would grow for hours."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from functools import cache

EVERY = 30.0  # least seconds between two returns, which take some hundredths of a second


class MemoryTrim:
    """Returns freed memory now and then. `trim`: does it; by default glibc's `malloc_trim`, elsewhere nothing."""

    def __init__(self, trim: Callable[[], object] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._trim, self._clock = trim or give_back, clock
        self._lock, self._last = threading.Lock(), clock()

    def after_work(self) -> None:
        """Called after each piece of work, by any thread."""
        with self._lock:
            if self._clock() - self._last < EVERY:
                return
            self._last = self._clock()
        self._trim()


def give_back() -> None:
    """Return all freed memory now, where the C library is glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library
        return


@cache
def memory_trim() -> MemoryTrim:
    """The one of this process."""
    return MemoryTrim()
