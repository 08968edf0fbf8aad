"""A folder of pictures, whose sub-folders may be classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vizapp.errors import VizError, plain_name
from vizapp.files import natural_key
from vizapp.media.formats import picture_suffixes, readable_formats
from vizapp.media.picture import local_path, showable
from vizapp.media.source import LONGEST_PATH, File, ImageRef, Source, file_stamp


@dataclass(frozen=True, eq=False)
class Folder(Source):
    """The pictures under `root`, listed and not yet decoded.

    `names`: their paths below `root`, in natural order (`2.png` before `10.png`), as text, which takes a fifth of the
    memory. `labels`: the sub-folder of `root` that each picture lies in, None directly under `root`. `skipped`: files
    that are no pictures by their name, broken links, and folders that may not be read.
    """

    names: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The pictures' files, made anew at each call."""
        return tuple(self.root / name for name in self.names)

    @property
    def name(self) -> str:
        """The folder's own name, for showing."""
        return showable(self.root.resolve().name) or str(self.root)

    def image_ref(self, index: int) -> ImageRef:
        """The picture's file."""
        return File(os.path.join(self.root, self.names[index]))

    def path(self, index: int) -> str:
        """The path below `root`."""
        return plain_name(self.names[index].replace(os.sep, "/"), LONGEST_PATH)

    def stamp(self, index: int) -> str:
        """Size and time of change."""
        return file_stamp(self.root / self.names[index])


def list_folder(path: str | Path, within: Path | None = None, tick: Callable[[float], None] | None = None) -> Folder:
    """List the pictures in a folder and everything under it; hidden files are left out, links are followed once.

    With `within`, what really lies outside of that folder (behind a link) is passed over. `tick` is called with 0 now and
    then, as nobody knows how much there is; whatever it raises ends the work.

    Raises:
        VizError: there is no such folder, it is a file, it may not be read, or there is no picture in it.
    """
    root = local_path(path, "folder")
    subject = showable(str(root))
    try:
        if not root.exists():
            raise VizError(f"There is no folder {subject}.", code="no-such-folder")
        if not root.is_dir():
            raise VizError(
                f"{subject} is a file; give the folder that it lies in, or open it as a picture.", code="not-a-folder"
            )
        files, odd = _walk(root, within, tick or _no_tick)
    except OSError as error:
        raise VizError(
            f"{subject} cannot be read: {(error.strerror or 'input/output error').lower()}.", code="unreadable"
        ) from error
    files.sort(key=lambda file: tuple(map(natural_key, file.relative_to(root).parts)))
    paths = [file for file in files if file.suffix.lower() in picture_suffixes()]
    skipped = [file for file in files if file.suffix.lower() not in picture_suffixes()] + odd
    if not paths:
        raise VizError(
            f"There is no picture in {subject}{_others(skipped)}; pictures are read as {readable_formats()}.",
            code="no-pictures",
        )
    labels = [_label(file, root) for file in paths]
    classes = sorted({label for label in labels if label is not None}, key=natural_key)
    names = tuple(str(file.relative_to(root)) for file in paths)
    return Folder(root, tuple(labels), tuple(classes), names, skipped=tuple(skipped))


def _label(file: Path, root: Path) -> str | None:
    parts = file.relative_to(root).parts
    return plain_name(parts[0]) if len(parts) > 1 else None


def _no_tick(share: float) -> None:
    """What is called where nobody wants to know."""


def _walk(root: Path, within: Path | None, tick: Callable[[float], None]) -> tuple[list[Path], list[Path]]:
    """The files under `root`, and what is neither file nor folder or may not be read. OSError where `root` may not.

    Real folders are entered before links, and none twice, so that a link back to where one came from ends there.
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
            at = (
                place if entry.is_symlink() else entry
            )  # an entry knows without asking again, but fails on circular links
            if within is not None and entry.is_symlink() and not is_inside(place, within):
                odd.append(place)
            elif at.is_dir():
                (links if entry.is_symlink() else real).append(place)
            else:
                (files if at.is_file() else odd).append(place)
    return files, odd


def is_inside(place: Path, folder: Path) -> bool:
    """Whether a file really lies in the folder, after links are followed."""
    try:
        return place.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a link that leads to itself
        return False


def _others(skipped: list[Path]) -> str:
    """`" (3 other files: .txt, .csv)"`, or nothing where the folder is empty."""
    if not skipped:
        return ""
    kinds = Counter(showable(path.suffix) or "no suffix" for path in skipped)
    named = ", ".join(kind for kind, _ in kinds.most_common(3))
    return f" ({len(skipped)} other file{'s' if len(skipped) > 1 else ''}: {named})"
