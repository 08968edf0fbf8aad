"""Data sets listed in a CSV file: a column of paths and optionally a column of labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path, PurePath
from typing import TextIO

from vizapp.errors import VizError, plain_name, showable
from vizapp.media.folder import is_inside
from vizapp.media.formats import picture_suffixes
from vizapp.media.source import FileSource, classes_of

_PATHS = (
    "path", "file", "filename", "filepath", "file_name", "file_path", "image", "picture", "photo", "image_id", "image_path",
    "image_name", "img", "img_path",
)  # fmt: skip
_LABELS = ("label", "class", "category", "classname", "class_name", "target")


MOST_ROWS = 2_000_000  # they take 0.7 GB while they are read
MOST_LABELS = 100_000
_LONGEST_LINE = 2**20


def open_listing(path: Path, within: Path | None = None, tick: Callable[[float], None] | None = None) -> FileSource:
    """The pictures listed in a CSV (or TSV) file. The root of the result is that file.

    The first row may name the columns: `path` (or `file`, `image` …) and `label` (or `class` …). Otherwise the first
    column has the paths and the second one, if any, the labels. Columns are divided by commas, tabs (TSV) or semicolons.
    Relative paths start from the folder of the file, or, if the first of them is not there, from a sub-folder of it, if
    exactly one contains the first picture.

    With `within`, rows that name files outside of that folder are skipped. `tick` is called with 0 from time to time; it may
    raise to cancel.

    Raises:
        VizError: the file is not text, or lists nothing, or too many photos.
    """
    tick = tick or (lambda share: None)
    subject = showable(str(path))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_rows(file, _delimiter(path, file), tick))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VizError(f"{subject} cannot be read as a CSV file: {error}.", code="list-damaged") from error
    if len(rows) > MOST_ROWS:
        raise VizError(f"{subject} lists more than {MOST_ROWS:,} photos; divide it.", code="too-many-files")
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    named = next((name for name in _PATHS if name in header), None)
    titled = named is not None or _is_title(rows)
    at = header.index(named) if named else 0
    label_name = next((name for name in _LABELS if name in header), None)
    label_at = header.index(label_name) if titled and label_name else None if named else 1
    found = [row for row in rows[1 if titled else 0 :] if len(row) > at and row[at].strip()]
    start = _start(path.parent, found[0][at].strip(), within) if found else path.parent
    if within is not None:  # after resolving links
        inside = _insider(within)
        found = [row for row in found if not tick(0.0) and inside(os.path.join(start, row[at].strip()))]
    if not found:
        raise VizError(f"{subject} lists no photo; each row needs a path, and may have a label.", code="no-pictures")
    paths = tuple(row[at].strip() for row in found)
    if label_at is not None and len({row[label_at] for row in found if len(row) > label_at}) > MOST_LABELS:
        raise VizError(f"{subject} names more than {MOST_LABELS:,} classes.", code="too-many-classes")
    labels = tuple(
        (plain_name(row[label_at].strip()) or None) if label_at is not None and len(row) > label_at else None
        for row in found
    )
    return FileSource(path, labels, classes_of(labels), paths, start)


def _rows(file: TextIO, delimiter: str, tick: Callable[[float], None]) -> Iterator[list[str]]:
    """The rows that are not empty, one more than `MOST_ROWS` at most."""
    rows = filter(None, csv.reader(_lines(file), delimiter=delimiter))
    for number, row in enumerate(islice(rows, MOST_ROWS + 1)):
        if number % 1000 == 0:
            tick(0.0)
        yield row


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise csv.Error("a line has more than a million characters")
        yield line


def _insider(within: Path) -> Callable[[str], bool]:
    """`is_inside` for very many files: each folder is resolved once."""
    known: dict[str, bool] = {}

    def inside(place: str) -> bool:
        folder, name = os.path.split(place)
        if name in ("", ".", "..") or "\0" in name or os.path.islink(place):
            return is_inside(Path(place), within)
        if folder not in known:
            known[folder] = is_inside(Path(folder), within)
        return known[folder]

    return inside


def _delimiter(path: Path, file: TextIO) -> str:
    """What divides the columns; judged by the first line, which is read from the start of the file."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    line = file.readline(csv.field_size_limit()).lower()
    file.seek(0)
    cells = [cell.strip(' "\n') for cell in line.split(";")]
    known = any(cell in (*_PATHS, *_LABELS) or _is_picture(cell) for cell in cells)
    return ";" if len(cells) > 1 and known and not any(_is_picture(cell) for cell in line.split(",")[:-1]) else ","


def _is_picture(cell: str) -> bool:
    return PurePath(cell.strip()).suffix.lower() in picture_suffixes()


def _is_title(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: it names no picture, and the second row does."""
    return len(rows) > 1 and not _is_picture(rows[0][0]) and _is_picture(rows[1][0])


def _start(folder: Path, first: str, within: Path | None) -> Path:
    try:
        if not (folder / first).exists():
            inside = [place for place in folder.iterdir() if within is None or is_inside(place, within)]
            holding = [place for place in inside if place.is_dir() and (place / first).exists()]
            if len(holding) == 1:
                return holding[0]
    except OSError:
        pass  # reported when the picture is opened
    return folder
