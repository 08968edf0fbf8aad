"""What all collections of pictures have in common: they are listed at once and decoded one by one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from vizapp.errors import VizError
from vizapp.media.picture import Picture, open_picture, showable

LONGEST_PATH = 4096  # characters of a picture's path: what file systems allow


class ImageRef(Protocol):
    """All that another process needs to open one picture; small, and can be pickled."""

    def open(self) -> Picture:
        """Decode the picture. Raises VizError where it cannot be read."""
        ...


@dataclass(frozen=True, eq=False)
class Source(ABC):
    """A collection of pictures in a fixed order, listed and not yet decoded.

    `root`: where it lies, or what it is called. `labels`: the class of each picture, or None. `classes`: the different
    labels, in natural order. `skipped`: what was found and is no picture by its name.
    """

    root: Path
    labels: Sequence[str | None]
    classes: tuple[str, ...]
    skipped: tuple[Path, ...] = field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """A name for showing."""
        return showable(self.root.name) or str(self.root)

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, index: int) -> Picture:
        """Decode picture number `index`, with its label. Raises VizError where it is damaged or has gone meanwhile."""
        return replace(self.image_ref(index).open(), label=self.labels[index])

    @abstractmethod
    def image_ref(self, index: int) -> ImageRef:
        """What another process needs to open picture number `index`."""

    @abstractmethod
    def path(self, index: int) -> str:
        """What picture number `index` is called: its path below `root`, with `/`; for showing and writing."""

    def index_of(self, path: str) -> int:
        """The number of the picture that `path` calls so; of the first, where there are several.

        Raises:
            VizError: there is none, as when the collection was listed before the picture went.
        """
        if path not in self._numbers:
            raise VizError(f"There is no picture {path!r} in {showable(str(self.root))} any more.", code="picture-gone")
        return self._numbers[path]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {self.path(index): index for index in reversed(range(len(self)))}

    def stamp(self, index: int) -> str:
        """What changes when the picture is replaced, without reading it; empty where that cannot happen."""
        return ""

    def listing_digest(self, tick: Callable[[float], None] | None = None) -> str:
        """A digest (sha256 hex) of the pictures' order, names, labels and stamps; no picture is read.

        `tick` is called with the share that is done, every thousand pictures.
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

    def open(self) -> Picture:
        """Decode the file."""
        return open_picture(self.path)


def file_stamp(path: Path) -> str:
    """Size and time of change of a file; "gone" where there is none, or can be none of that name."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return "gone"
    return f"{status.st_size} {status.st_mtime_ns}"


def spread(count: int, most: int) -> list[int]:
    """At most `most` evenly spaced numbers below `count`, beginning with 0; all of them if `most` is 0."""
    wanted = min(count, most) if most else count
    return [index * count // wanted for index in range(wanted)]
