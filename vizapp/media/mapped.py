"""Pixels of large pictures, in files without names that are mapped into memory.

The system can drop such pixels from memory and read them again, so a server in which many users have large photos stays small.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from vizapp.errors import VizError
from vizapp.settings import settings

MOST = 4 * 2**30  # bytes of all mapped pictures together; further ones wait
SECONDS = 60.0  # of waiting; then they are refused
_BAND = 2**24  # bytes of the rows that are read at once
_POLL = 0.1  # seconds between two calls of the tick
_changed = threading.Condition()
_held = 0  # bytes of mapped pictures, and of those that are being decoded


class Reservation:
    """Room for a picture of about `nbytes` among the mapped ones, until it is released or the picture is garbage."""

    def __init__(self, nbytes: int, subject: str, tick: Callable[[float], None] | None) -> None:
        """Wait for the room. `tick` may raise to cancel; without it, there is no limit.

        Raises:
            VizError: there was none for a minute.
        """
        global _held
        self._nbytes, deadline = nbytes, time.monotonic() + SECONDS
        with _changed:
            while tick is not None and _held > 0 and _held + nbytes > MOST:
                _changed.wait(_POLL)
                tick(0.0)
                if time.monotonic() > deadline:
                    raise VizError(
                        f"{subject} is large, and too many large photos are open at the moment; make it smaller, or try "
                        "again later.",
                        code="too-many-large-pictures",
                    )
            _held += nbytes

    def release(self) -> None:
        """Let others have the room, unless mapped pixels keep it."""
        global _held
        with _changed:
            _held, self._nbytes = _held - self._nbytes, 0
            _changed.notify_all()

    def keep_for(self, pixels: np.ndarray) -> None:
        """Keep the room until the mapped pixels are garbage, whatever releases it before."""
        kept, held = Reservation(0, "", None), _mapping(pixels)
        assert held is not None
        self._nbytes, kept._nbytes = 0, self._nbytes
        weakref.finalize(held, kept.release)


def new_files() -> Iterator[BinaryIO]:
    """Files without names that another process may write pixels to, the best one first; none where there are no such files."""
    if not hasattr(os, "posix_fallocate"):
        return
    with contextlib.suppress(OSError):
        settings().cache.mkdir(parents=True, exist_ok=True)
        yield tempfile.TemporaryFile(dir=settings().cache)  # noqa: SIM115
    if hasattr(os, "memfd_create"):
        yield os.fdopen(os.memfd_create("pixels"), "w+b")


def write(pixels: np.ndarray, descriptors: list[int]) -> int | None:
    """Write pixels to the first of the files that has room for them; its index, or None if none has."""
    for index, descriptor in enumerate(descriptors):
        with contextlib.suppress(OSError), os.fdopen(os.dup(descriptor), "wb") as file:
            for part in bands(pixels):
                file.write(np.ascontiguousarray(part).data)
            return index
    return None


def read(file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of that shape in the file, read-only."""
    return np.frombuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), np.uint8).reshape(shape)


def bands(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of a picture, in parts of 16 MB. Each part of a mapped picture is dropped from memory before the next one."""
    rows = max(1, _BAND // max(1, pixels[0].nbytes))
    held = _mapping(pixels)
    for top in range(0, len(pixels), rows):
        yield pixels[top : top + rows]
        if held is not None and hasattr(mmap, "MADV_DONTNEED"):
            held.madvise(mmap.MADV_DONTNEED)


def channel_of(pixels: np.ndarray, number: int) -> np.ndarray:
    """A copy of a channel of uint8 pixels, `[H W]`."""
    height, width = pixels.shape[:2]
    # From the system and not from malloc, which keeps what threads of this size free: 25 MB each.
    channel, top = np.frombuffer(mmap.mmap(-1, height * width), np.uint8).reshape(height, width), 0
    for part in bands(pixels):
        channel[top : top + len(part)] = part[:, :, number]
        top += len(part)
    return channel


def _mapping(pixels: np.ndarray) -> mmap.mmap | None:
    base = pixels.base
    while isinstance(base, np.ndarray):
        base = base.base
    return base.obj if isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap) else None
