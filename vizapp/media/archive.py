"""The pictures in a zip file, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from vizapp.errors import LONGEST, VizError, plain_name, showable
from vizapp.files import LONGEST_PATH, natural_key
from vizapp.media.formats import picture_suffixes, readable_formats
from vizapp.media.picture import Picture, open_picture
from vizapp.media.source import ImageRef, Source, classes_of, file_stamp
from vizapp.settings import settings

# What zipfile raises for the directory of a damaged file, or of a newer format version …
_UNREADABLE_LIST = (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError)
# … and for a member that is damaged, encrypted (RuntimeError), missing, or in an unknown compression format.
_UNREADABLE_MEMBER = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError, KeyError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A picture inside a zip file."""

    archive: str
    name: str

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        """Decode the member. At most `upload_mb` megabytes are unpacked, whatever size it claims."""
        most = settings().upload_mb * 2**20
        subject = f"{showable(self.name)} in {showable(Path(self.archive).name)}"
        try:
            with _open_current(self.archive).open(self.name) as file:
                content = file.read(most + 1)
        except _UNREADABLE_MEMBER as error:
            raise VizError(
                f"{subject} cannot be unpacked: {str(error) or type(error).__name__}.", code="archive-damaged"
            ) from error
        if len(content) > most:
            limit = f"{settings().upload_mb} MB"
            raise VizError(f"{subject} is larger than {limit} unpacked (VIZAPP_UPLOAD_MB).", code="file-too-large")
        if not content:
            raise VizError(f"{subject} is empty (0 bytes).", code="empty-file")
        return open_picture(content, name=PurePosixPath(self.name).name, tick=tick)


@dataclass(frozen=True, eq=False)
class Archive(Source):
    """The pictures in a zip file. Top-level folders are classes, below a folder that contains all of them, if any."""

    members: tuple[str, ...]
    above: int = 0  # length of the path of the folder that contains everything

    def image_ref(self, index: int) -> ImageRef:
        """The zip file and the member's name."""
        return Member(str(self.root), self.members[index])

    def path(self, index: int) -> str:
        """The name in the zip file, relative to the folder that contains everything."""
        return plain_name(_slashes(self.members[index][self.above :]), LONGEST_PATH)

    def stamp(self, index: int) -> str:
        """Checksum and size of the member, from the zip file's directory."""
        info = _open_current(str(self.root)).getinfo(self.members[index])
        return f"{info.CRC} {info.file_size}"


def open_archive(path: Path) -> Archive:
    """List the pictures in a zip file; nothing is unpacked.

    Raises:
        VizError: the file is damaged or contains no picture.
    """
    subject = showable(str(path))
    try:
        names = [info.filename for info in _open_current(str(path)).infolist() if info.filename and not info.is_dir()]
    except _UNREADABLE_LIST as error:
        raise VizError(
            f"{subject} cannot be read as a zip file: {str(error) or type(error).__name__}.", code="archive-damaged"
        ) from error
    shown = [name for name in names if _is_plain(_slashes(name))]
    members = sorted(
        (name for name in shown if PurePosixPath(name).suffix.lower() in picture_suffixes()),
        key=lambda name: tuple(map(natural_key, PurePosixPath(_slashes(name)).parts)),
    )
    if not members:
        raise VizError(
            f"There is no photo in {subject} ({len(names)} other files); supported formats: {readable_formats()}.",
            code="no-pictures",
        )
    parts = [PurePosixPath(_slashes(name)).parts for name in members]
    lengths = [len(part) for part in parts]
    nested = len({part[0] for part in parts}) == 1 and min(lengths) > 1 and max(lengths) > 2
    above = len(parts[0][0]) + 1 if nested else 0
    parts = [part[1:] for part in parts] if nested else parts
    labels = tuple(plain_name(part[0]) if len(part) > 1 else None for part in parts)
    chosen = set(members)
    skipped = tuple(Path(name) for name in names if name not in chosen)
    return Archive(path, labels, classes_of(labels), tuple(members), above, skipped=skipped)


def _slashes(name: str) -> str:
    """The name with slashes, where a program for Windows has written backslashes."""
    return name.replace("\\", "/")


def _is_plain(name: str) -> bool:
    """Whether the name is valid, relative, stays inside the archive, and no part of it is hidden or `__MACOSX`."""
    parts = PurePosixPath(name).parts
    if len(name) > LONGEST_PATH or any(len(part) > LONGEST for part in parts):
        return False
    return bool(parts) and not any(part[0] in "./\\" or part == "__MACOSX" or ":" in part for part in parts)


def close_archives() -> None:
    """Close the cached zip files. Those still in use are reopened."""
    _open.cache_clear()


def _open_current(path: str) -> zipfile.ZipFile:
    return _open(path, file_stamp(Path(path)))


@lru_cache(maxsize=4)
def _open(path: str, stamp: str) -> zipfile.ZipFile:
    """Cached, because reading the directory of a large zip file takes seconds. Reads are thread-safe."""
    return zipfile.ZipFile(path)
