"""Uploaded photos and checkpoints in the cache folder, so that reloads and links find them for a day after their last use."""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from pathlib import Path

from vizapp.errors import VizError
from vizapp.files import atomic_file
from vizapp.settings import settings

SECONDS = 86_400.0  # since the last use
CAPACITY = 2**30  # bytes of all stored uploads; those used longest ago are removed first
_END = ".upload"
_DIGITS = re.compile("[0-9a-f]{16,64}")
_LONGEST_NAME = 2**16  # bytes


def digest_of(content: bytes, name: str) -> str:
    """256 bits that nobody can guess who does not know the content and the name."""
    return hashlib.sha256(hashlib.sha256(content).digest() + _line(name)).hexdigest()


def store(digest: str, content: bytes, name: str) -> None:
    """Store an upload. On a full disk it is not stored: the app works on, but a reload loses the upload."""
    with suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        with atomic_file(_place(digest)) as file:
            file.write(_line(name))  # not joined: a copy of a large checkpoint is half a gigabyte
            file.write(content)
    remove_old()


def restore(digest: str, noun: str) -> tuple[bytes, str]:
    """Content and name of a stored upload.

    Raises:
        VizError: it is not stored any more, or never was on this machine.
    """
    place = _place(digest)
    with suppress(OSError):
        if time.time() - place.stat().st_mtime < SECONDS:
            with place.open("rb") as file:
                name = file.readline(_LONGEST_NAME).decode("utf-8", "replace").removesuffix("\n")
                content = file.read()
            if digest_of(content, name) == digest:  # else damaged
                place.touch()
                return content, name
    raise VizError(f"The uploaded {noun} is not on this machine any more. Upload it again.", code="upload-expired")


def find(short: str) -> tuple[str, str] | None:
    """Digest and name of the stored upload whose digest begins with these hexadecimal digits; None if there is none."""
    with suppress(OSError):
        for place in _folder().glob(f"{short}*{_END}") if _DIGITS.fullmatch(short) else ():
            if time.time() - place.stat().st_mtime < SECONDS:
                with place.open("rb") as file:
                    name = file.readline(_LONGEST_NAME).decode("utf-8", "replace").removesuffix("\n")
                return place.name.removesuffix(_END), name
    return None


def remove_old() -> None:
    """Delete the uploads that were not used for a day, and the oldest beyond the capacity."""
    with suppress(OSError):  # another replica may do the same
        found = sorted(((file.stat(), file) for file in _folder().glob(f"*{_END}")), key=lambda one: -one[0].st_mtime)
        total = 0
        for status, file in found:
            total += status.st_size
            if total > CAPACITY or time.time() - status.st_mtime >= SECONDS:
                file.unlink(missing_ok=True)


def _line(name: str) -> bytes:
    return name.replace("\n", " ").encode("utf-8", "replace") + b"\n"


def _folder() -> Path:
    return settings().cache / "uploads"


def _place(digest: str) -> Path:
    return _folder() / f"{digest}{_END}"
