"""The interface of all data sets: pictures are listed at once and decoded one by one."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from vizapp.errors import VizError, plain_name, showable
from vizapp.files import LONGEST_PATH, natural_key
from vizapp.media.picture import Picture, open_picture


class ImageRef(Protocol):
    """A small, picklable reference with which another process can open a picture."""

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        """Decode the picture; `tick` may raise to cancel. Raises VizError if it cannot be read."""
        ...


@dataclass(frozen=True, eq=False)
class Source(ABC):
    """A data set of pictures in a fixed order, not yet decoded, as `open_folder` gives it. `len` counts them.

    Attributes:
        root: Its location or name.
        labels: The class of each picture, or None.
        classes: The distinct labels, in natural order.
        skipped: Files that are not pictures by their suffix.
    """

    root: Path
    labels: Sequence[str | None]
    classes: tuple[str, ...]
    skipped: tuple[Path, ...] = field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """A display name."""
        return showable(self.root.name) or str(self.root)

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, index: int, tick: Callable[[float], None] | None = None) -> Picture:
        """Decode picture number `index`, with its label. Raises VizError if it is damaged or missing.

        `tick` is called from time to time while that takes long; it may raise to cancel.
        """
        return replace(self.image_ref(index).open(tick), label=self.labels[index])

    def open_readable(self, numbers: Iterable[int], errors: list[str] | None = None) -> Iterator[tuple[int, Picture]]:
        """Number and picture of each of `numbers` that can be decoded. The messages of the others go into `errors`."""
        for number in numbers:
            try:
                picture = self.open(number)
            except VizError as error:
                if errors is not None:
                    errors.append(str(error))
                continue
            yield number, picture

    @abstractmethod
    def image_ref(self, index: int) -> ImageRef:
        """A reference with which another process can open picture number `index`."""

    @abstractmethod
    def path(self, index: int) -> str:
        """The display path of picture number `index`: relative to `root`, with `/`."""

    def index_of(self, path: str) -> int:
        """The number of the first picture with this `path`.

        Raises:
            VizError: there is none, for example because the picture was removed.
        """
        if path not in self._numbers:
            raise VizError(f"There is no photo {path!r} in {showable(str(self.root))} any more.", code="picture-gone")
        return self._numbers[path]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {self.path(index): index for index in reversed(range(len(self)))}

    def stamp(self, index: int) -> str:
        """A value that changes when the file is replaced, without reading it; empty if that cannot happen."""
        return ""

    def listing_digest(self, tick: Callable[[float], None] | None = None) -> str:
        """A digest (sha256 hex) of the pictures' order, names, labels and stamps; no picture is read.

        `tick` is called with the progress, from 0 to 1, every thousand pictures.
        """
        answer = hashlib.sha256()
        for index in range(len(self)):
            if tick is not None and index % 1000 == 0:
                tick(index / len(self))
            row = (self.path(index), self.labels[index], self.stamp(index))
            answer.update(repr(row).encode("utf-8", "surrogateescape") + b"\n")
        return answer.hexdigest()


@dataclass(frozen=True)
class File:
    """A picture in a file of its own."""

    path: str

    def open(self, tick: Callable[[float], None] | None = None) -> Picture:
        """Decode the file."""
        return open_picture(self.path, tick=tick)


@dataclass(frozen=True, eq=False)
class FileSource(Source):
    """Pictures in files. `names`: their paths relative to `start`, as text (a fifth of the memory of paths)."""

    names: tuple[str, ...]
    start: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the pictures. Each call builds a new tuple."""
        return tuple(self.start / name for name in self.names)

    def image_ref(self, index: int) -> ImageRef:
        """The file of the picture."""
        return File(os.path.join(self.start, self.names[index]))

    def path(self, index: int) -> str:
        """The path relative to `start`."""
        return plain_name(self.names[index].replace(os.sep, "/"), LONGEST_PATH)

    def stamp(self, index: int) -> str:
        """Size and modification time of the file."""
        return file_stamp(self.start / self.names[index])


def classes_of(labels: Iterable[str | None]) -> tuple[str, ...]:
    """The distinct labels in natural order."""
    return tuple(sorted({label for label in labels if label is not None}, key=natural_key))


def skipped_note(reasons: Sequence[str]) -> str:
    """How many photos were skipped, and why the first was; empty without reasons."""
    if len(reasons) < 2:
        return f"1 photo was skipped: {reasons[0]}" if reasons else ""
    return f"{len(reasons):,} photos were skipped, the first: {reasons[0]}"


def file_stamp(path: Path) -> str:
    """Size and modification time of a file; "gone" if it does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return "gone"
    return f"{status.st_size} {status.st_mtime_ns}"


def spread(count: int, most: int) -> list[int]:
    """At most `most` evenly spaced numbers below `count`, beginning with 0; all of them if `most` is 0."""
    wanted = min(count, most) if most else count
    return [index * count // wanted for index in range(wanted)]
