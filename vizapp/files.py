"""Atomic file writes and natural sorting of names."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

Sync = Literal["none", "file", "folder"]
_PART = ".part"


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key that compares numbers by value and ignores case: `2.png` before `10.png`."""
    parts = re.split(r"([0-9]+)", name)
    pieces = tuple((0, int(part), "") if part[:1].isdecimal() else (1, 0, part.lower()) for part in parts if part)
    return pieces, name


def atomic_write(path: Path, data: bytes, sync: Sync = "none") -> None:
    """Write a file atomically: readers see the old or the new content, even with several writers.

    Args:
        path: the file; its folder must exist.
        data: the new content.
        sync: what to flush to disk before returning, to survive a power failure: nothing, the file, or the file and its
            folder's entries (needed only for the last file written to a folder).

    Raises:
        OSError: the file cannot be written. The old content is kept.
    """
    with atomic_file(path, sync) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, sync: Sync = "none") -> Iterator[IO[bytes]]:
    """Like `atomic_write`, for content written in pieces. An exception in the block discards it."""
    # Not `tempfile`: its files are readable only by their owner, but caches may be shared.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        with part.open("xb") as file:
            yield file
            if sync != "none":
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):  # on a read-only disk, removing even a missing file fails
            part.unlink(missing_ok=True)
    if sync == "folder":
        _sync_folder(path.parent)


@contextmanager
def atomic_files(folder: Path, last: str = "") -> Iterator[Path]:
    """A temporary folder whose files are moved into `folder` at the end of the block, unless it raises.

    The file named `last` is moved last: if it exists, so do the others.
    """
    with tempfile.TemporaryDirectory(prefix=f"{_PART}-", dir=folder) as name:
        yield Path(name)
        for file in sorted(Path(name).iterdir(), key=lambda file: (file.name == last, file.name)):
            file.replace(folder / file.name)


def remove_leftovers(folder: Path, seconds: float) -> None:
    """Remove partial files older than that many seconds, left in a folder by killed processes."""
    for part in folder.glob(f"*.????????{_PART}"):
        with suppress(OSError):  # another process may be removing it too
            if time.time() - part.stat().st_mtime > seconds:
                part.unlink()


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, on systems that support it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
