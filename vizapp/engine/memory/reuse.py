"""Reuse the memory of large activations from one pass to the next."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vizapp.engine.memory.trim import give_back, memory_trim

# glibc's `mallopt`. The second value of each is what glibc arrives at by itself once a large block has been freed.
_MMAP_MAX, _MAPPED = -4, 65536  # blocks that are mapped from the system one by one
_TRIM_THRESHOLD, _KEPT = -1, 64 * 2**20  # free bytes at the end of the heap from which on they are given back
_MMAP_THRESHOLD, _SMALL = -3, 32 * 2**20  # bytes from which on a block is mapped
LONG = 1.0  # seconds of work, beside which the time to give memory back does not count
_lock, _users, _began = threading.Lock(), 0, 0.0


@contextmanager
def reused_memory() -> Iterator[None]:
    """Inside the block the process keeps the memory that it frees; after the last such block it gives it back.

    After short work it does so now and then only, as it takes some hundredths of a second in a process with many objects.
    Without the block glibc maps each large block anew, and the system clears it page by page: a sixth of the processor time of
    ResNet-50 on batches of 16 photos. Blocks of other sizes may lie between, so the peak can be higher: not at all for
    ResNet-50, by a quarter for DenseNet-121. The setting is that of the whole process. Other C libraries are left alone.
    """
    global _users, _began
    with _lock:
        _users += 1
        if _users == 1:
            _began = time.monotonic()
            _set(_MMAP_MAX, 0)
            _set(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _set(_MMAP_MAX, _MAPPED)
                _set(_TRIM_THRESHOLD, _KEPT)
                _set(_MMAP_THRESHOLD, _SMALL)
            at_once = not _users and time.monotonic() - _began > LONG
        (give_back if at_once else memory_trim().after_work)()


def give_back_if_kept() -> bool:
    """Give memory back if a block keeps some now; returns whether one does."""
    if _users:
        give_back()
    return bool(_users)


def _set(option: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(option, value)
    except (AttributeError, OSError, TypeError):  # another C library
        return
