"""Files that other processes never see half written, and the order in which people sort names."""

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
    """A sort key that compares runs of digits by value and letters without regard to case: `2.png` before `10.png`."""
    parts = re.split(r"([0-9]+)", name)
    pieces = tuple((0, int(part), "") if part[:1].isdecimal() else (1, 0, part.lower()) for part in parts if part)
    return pieces, name


def atomic_write(path: Path, data: bytes, sync: Sync = "none") -> None:
    """Write a file so that readers see either its old or its new content, also if several processes write it at once.

    Args:
        path: the file; its folder must exist.
        data: the whole new content.
        sync: what is flushed to the disk before the call returns, to survive a power failure: nothing, the file, or the
            file and the folder's list of names (once per folder is enough, for the last file written).

    Raises:
        OSError: the file cannot be written. Its old content is kept.
    """
    with atomic_file(path, sync) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, sync: Sync = "none") -> Iterator[IO[bytes]]:
    """As `atomic_write`, for content that is written piece by piece. After an exception in the block nothing is kept."""
    # Not `tempfile`: its files are readable by their owner alone, and caches may be shared.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        with part.open("xb") as file:
            yield file
            if sync != "none":
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):  # a read-only disk refuses to remove even a missing file
            part.unlink(missing_ok=True)
    if sync == "folder":
        _sync_folder(path.parent)


@contextmanager
def atomic_files(folder: Path, last: str = "") -> Iterator[Path]:
    """A temporary folder whose files move into `folder` at the end of the block; after an exception none of them does.

    `last` names the file that moves after all others: where it exists, the others do.
    """
    with tempfile.TemporaryDirectory(prefix=f"{_PART}-", dir=folder) as name:
        yield Path(name)
        for file in sorted(Path(name).iterdir(), key=lambda file: (file.name == last, file.name)):
            file.replace(folder / file.name)


def remove_leftovers(folder: Path, seconds: float) -> None:
    """Remove what killed processes left half written in a folder more than that many seconds ago."""
    for part in folder.glob(f"*.????????{_PART}"):
        with suppress(OSError):  # another process may be removing it too
            if time.time() - part.stat().st_mtime > seconds:
                part.unlink()


def _sync_folder(folder: Path) -> None:
    """Flush the folder's list of names to the disk, on systems that allow it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
