"""A folder of pictures. Its sub-folders may be classes."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vizapp.errors import VizError, plain_name, showable
from vizapp.files import local_path, natural_key
from vizapp.media.formats import picture_suffixes, readable_formats
from vizapp.media.source import FileSource, classes_of

MOST = 50_000  # entries whose dates are compared


@dataclass(frozen=True, eq=False)
class Folder(FileSource):
    """The pictures in a folder. `labels`: their top-level sub-folders, None directly in the folder."""

    @property
    def name(self) -> str:
        """The name of the folder, also if its path is `.` or ends in `..`."""
        return showable(self.root.resolve().name) or str(self.root)


def list_folder(path: str | Path, within: Path | None = None, tick: Callable[[float], None] | None = None) -> Folder:
    """List the pictures in a folder, recursively. Hidden files are skipped; each linked folder is entered once.

    With `within`, files that links place outside of that folder are skipped. `tick` is called with 0 from time to time,
    because the total is unknown; it may raise to cancel.

    Raises:
        VizError: there is no such folder, it is a file, it cannot be read, or it contains no picture.
    """
    root = local_path(path, "folder")
    subject = showable(str(root))
    try:
        if not root.exists():
            raise VizError(f"There is no folder {subject}.", code="no-such-folder")
        if not root.is_dir():
            kind = "a file" if root.is_file() else "a device or a pipe"
            raise VizError(f"{subject} is {kind}; give a folder, or open it as a photo.", code="not-a-folder")
        files, odd = _walk(root, within, tick or (lambda share: None))
    except OSError as error:
        raise VizError(
            f"{subject} cannot be read: {(error.strerror or 'input/output error').lower()}.", code="unreadable"
        ) from error
    files.sort(key=lambda file: tuple(map(natural_key, file.relative_to(root).parts)))
    paths = [file for file in files if file.suffix.lower() in picture_suffixes()]
    skipped = [file for file in files if file.suffix.lower() not in picture_suffixes()] + odd
    if not paths:
        raise VizError(
            f"There is no photo in {subject}{_others(skipped)}; supported formats: {readable_formats()}.",
            code="no-pictures",
        )
    inside = [file.relative_to(root) for file in paths]
    labels = tuple(plain_name(file.parts[0]) if len(file.parts) > 1 else None for file in inside)
    return Folder(root, labels, classes_of(labels), tuple(map(str, inside)), root, skipped=tuple(skipped))


def _walk(root: Path, within: Path | None, tick: Callable[[float], None]) -> tuple[list[Path], list[Path]]:
    """The files under `root`, and entries that are unreadable or neither file nor folder. OSError if `root` is unreadable.

    Real folders are entered before links and none twice, so circular links end.
    """
    files: list[Path] = []
    odd: list[Path] = []
    seen: set[tuple[int, int]] = set()
    real, links = [root], list[Path]()
    while real or links:
        tick(0.0)
        folder = real.pop() if real else links.pop(0)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                visible = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError:
            if folder == root:
                raise
            odd.append(folder)
            continue
        for number, entry in enumerate(visible):
            if number % 1000 == 999:
                tick(0.0)
            place = folder / entry.name
            at = place if entry.is_symlink() else entry  # an entry has its type cached, but fails on circular links
            if within is not None and entry.is_symlink() and not is_inside(place, within):
                odd.append(place)
            elif at.is_dir():
                (links if entry.is_symlink() else real).append(place)
            else:
                (files if at.is_file() else odd).append(place)
    return files, odd


def folder_stamp(
    root: Path, within: Path | None = None, most: int = MOST, seconds: float = 0.5
) -> tuple[str, int]:  # fmt: skip
    """A value that changes when photos of a folder are added, removed or replaced, at any depth; and the next `most`.

    Names, sizes and dates are read, no content: about 4 µs per photo. It looks where `list_folder` does with the same `within`,
    upper folders first, at `most` entries. On a slow disk it stops after that many seconds; called again with the number that
    is returned, it looks at the same entries.
    """
    answer, suffixes, until = hashlib.sha256(), frozenset(picture_suffixes()), time.monotonic() + seconds
    seen, folders, count, full = set[tuple[int, int]](), [str(root)], 0, False
    for folder in folders:
        rows = [folder]
        with suppress(OSError):
            own = os.stat(folder)
            if (own.st_dev, own.st_ino) in seen:
                continue
            seen.add((own.st_dev, own.st_ino))
            rows.append(str(own.st_mtime_ns))
            with os.scandir(folder) as entries:
                for entry in entries:
                    full = count >= most or time.monotonic() > until
                    if full:
                        break
                    count += 1
                    rows.append(_entry_stamp(entry, within, suffixes, folders))
        answer.update("\n".join(sorted(rows)).encode("utf-8", "surrogateescape"))
        if full:
            break
    return answer.hexdigest(), count if full else most


def _entry_stamp(
    entry: os.DirEntry[str], within: Path | None, suffixes: frozenset[str], folders: list[str]
) -> str:  # fmt: skip
    """Name, size and date of a photo or a folder, which is added to `folders`; empty for what `list_folder` skips."""
    name = entry.name
    try:
        if name[0] == "." or (within is not None and entry.is_symlink() and not is_inside(Path(entry.path), within)):
            return ""
        if entry.is_dir():
            folders.append(entry.path)
        elif name[name.rfind(".") :].lower() not in suffixes:
            return ""
        status = entry.stat()
    except OSError:  # a circular link
        return ""
    return f"{name}/{status.st_size} {status.st_mtime_ns}"


def is_inside(place: Path, folder: Path) -> bool:
    """Whether a file is in the folder after resolving links."""
    try:
        return place.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a circular link
        return False


def _others(skipped: list[Path]) -> str:
    """`" (3 other files: .txt, .csv)"`, or an empty string if the folder is empty."""
    if not skipped:
        return ""
    kinds = Counter(showable(path.suffix) or "no suffix" for path in skipped)
    named = ", ".join(kind for kind, _ in kinds.most_common(3))
    return f" ({len(skipped)} other file{'s' if len(skipped) > 1 else ''}: {named})"
