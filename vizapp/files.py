"""Paths that users give, reads of ordinary files, atomic writes, and natural sorting of names."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from vizapp.errors import LONGEST, VizError, plain_name, showable

LONGEST_PATH = 4096  # bytes of a path: what systems allow
Sync = Literal["none", "file", "folder"]
_PART = ".part"


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key that compares numbers by value and ignores case: `2.png` before `10.png`."""
    parts = re.split(r"([0-9]+)", name)
    pieces = tuple((0, int(part), "") if part[:1].isdecimal() else (1, 0, part.lower()) for part in parts if part)
    return pieces, name


def local_path(path: str | Path, noun: str) -> Path:
    """The path with `~` expanded. Raises VizError if no file can have it."""
    text, subject = str(path), f"The path of the {noun}"
    if not text.strip():
        raise VizError(f"{subject} is empty.", code="bad-path")
    if "\0" in text:
        raise VizError(f"{subject} contains a NUL character, which no file name has.", code="bad-path")
    try:
        place = Path(path).expanduser()
        parts = [len(os.fsencode(part)) for part in place.parts]
    except RuntimeError as error:
        raise VizError(f"{showable(text)} names a user who has no home folder here.", code="bad-path") from error
    except UnicodeEncodeError:
        raise VizError(
            f"{subject}, {plain_name(text)!r}, contains a character that no file name has.", code="bad-path"
        ) from None
    if max(parts, default=0) > LONGEST or sum(parts) + len(parts) > LONGEST_PATH:
        raise VizError(f"{subject}, {plain_name(text)!r}, is too long for a file system.", code="bad-path")
    return place


def read_file(path: Path, most: int = 2**32) -> bytes:
    """The content of an ordinary file of at most `most` bytes.

    Raises:
        OSError: it cannot be read, is larger, or is a pipe or a device, which may block or never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe")
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MB")
    with path.open("rb") as file:
        return file.read(status.st_size)  # a larger number would be allocated


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


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's content. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
