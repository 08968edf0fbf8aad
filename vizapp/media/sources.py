"""Open any data set: a folder, a zip file, a CSV file, or a data set by name."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from vizapp.errors import VizError, nearest, showable
from vizapp.files import atomic_write, local_path
from vizapp.media.archive import open_archive
from vizapp.media.bundled import open_crops, open_digits, open_shapes
from vizapp.media.datasets import open_dataset
from vizapp.media.folder import list_folder
from vizapp.media.listing import open_listing
from vizapp.media.source import Source
from vizapp.settings import settings

_BUNDLED = {"digits": open_digits, "samples": open_crops, "shapes": open_shapes}
BUNDLED = tuple(_BUNDLED)
MOST_FILES = 50_000  # in an uploaded zip file; listing takes 0.1 ms and 2 kB per file
_LISTS = (".csv", ".tsv")
_ENTRY = b"PK\1\2"  # precedes each entry in the directory of a zip file


def open_folder(
    path: str | Path | bytes, within: Path | None = None, tick: Callable[[float], None] | None = None
) -> Source:
    """The pictures of a data set, not yet decoded.

    Takes a folder (recursive; sub-folders of the first level are classes), a zip file or its bytes, a CSV file of paths
    and labels, `"digits"` (scikit-learn's), `"samples"` (the sample photos in overlapping crops), `"shapes"` (drawn), and
    data sets of torchvision such as `"torchvision/CIFAR10"` (the test split; or `"torchvision/CIFAR10:train"`), downloaded
    if necessary. With `within`, files outside of that folder are skipped, after resolving links. `tick` is called from time
    to time while a folder is listed; it may raise to cancel.

    Raises:
        VizError: there is nothing of that name, it cannot be read, or it contains no picture.
    """
    if isinstance(path, (bytes, bytearray, memoryview)):
        return _keep_archive(bytes(path))
    if not isinstance(path, (str, Path)):
        raise VizError(
            f"No folder can be opened from {type(path).__name__}; give a path, a name or the bytes of a zip file.",
            code="not-a-folder",
        )
    text = str(path).strip()
    if text.lower().startswith("torchvision/"):
        return open_dataset(text)
    place = local_path(path, "folder")
    exists = os.path.exists(place)  # unlike Path.exists, False if it cannot be read; `list_folder` then says why
    if text in BUNDLED and not exists:
        return _BUNDLED[text]()
    if os.path.isfile(place):
        return _from_file(place, within, tick)
    if not exists and "/" not in text and (hint := nearest(text, BUNDLED)):
        raise VizError(f"There is no folder {showable(text)}.{hint}", code="no-such-folder")
    return list_folder(place, within, tick)


def _from_file(place: Path, within: Path | None, tick: Callable[[float], None] | None) -> Source:
    if place.suffix.lower() in _LISTS:
        return open_listing(place, within, tick)
    if place.suffix.lower() == ".zip" or zipfile.is_zipfile(place):
        return open_archive(place)
    raise VizError(
        f"{showable(str(place))} is a file; give the folder that it lies in, a zip file, or a CSV file that lists photos.",
        code="not-a-folder",
    )


def _keep_archive(content: bytes) -> Source:
    """An uploaded zip file, stored in the cache so that other processes can read it."""
    if content.count(_ENTRY) > MOST_FILES:
        raise VizError(f"The uploaded zip file lists more than {MOST_FILES:,} files; divide it.", code="too-many-files")
    place = settings().cache / "uploads" / f"{hashlib.sha256(content).hexdigest()[:32]}.zip"
    try:
        if not place.is_file() or place.read_bytes() != content:  # the cached file may be damaged
            place.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(place, content)
    except OSError as error:
        raise VizError(f"Cannot write to {place.parent}: {error.strerror or error}.", code="unwritable") from None
    try:
        return open_archive(place)
    except VizError as error:
        place.unlink(missing_ok=True)
        raise VizError(str(error).replace(showable(str(place)), "The uploaded file"), code=error.code) from None
