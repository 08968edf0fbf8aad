"""Photos with a marked part each: checked as Python gives them, or read from a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from vizapp.errors import VizError, nearest, plain_name, quoted, showable
from vizapp.files import local_path, read_file

FEWEST, MOST = 3, 12  # photos
Box = tuple[int, int, int, int]  # top, left, bottom, right; bottom and right exclusive
_SIDES = ("top", "left", "bottom", "right")
_LARGEST = 2**20  # bytes of a list


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a photo. `photo`: whatever `open_picture` takes. `box`: in pixels of the crop that the network sees."""

    photo: Any
    box: Box


def read_parts(value: Any) -> tuple[Part, ...]:
    """The parts of a list of (photo, (top, left, bottom, right)), or of the CSV file at a path.

    Raises:
        VizError: it is neither, or too few or too many photos; a box is empty or no box; a row of the file is wrong.
    """
    if isinstance(value, (str, Path)):
        return _counted(_from_file(local_path(value, "list of parts")))
    if not isinstance(value, (list, tuple)):
        raise VizError(
            f"parts is {quoted(value)}; it must be a list of (photo, (top, left, bottom, right)), or the path of a CSV file.",
            code="bad-value",
        )
    return _counted([_from_pair(number, pair) for number, pair in enumerate(value, 1)])


def _counted(parts: Sequence[Part]) -> tuple[Part, ...]:
    if not FEWEST <= len(parts) <= MOST:
        given = {0: "none was", 1: "one was"}.get(len(parts), f"{len(parts)} were")
        raise VizError(
            f"Correspondence compares {FEWEST} to {MOST} photos with a marked part each; {given} given.",
            code="wrong-number-of-parts",
        )
    return tuple(parts)


def _from_pair(number: int, pair: Any) -> Part:
    subject = f"Entry {number} of parts"
    if isinstance(pair, Part):
        return pair
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise VizError(f"{subject} has no part; give (photo, (top, left, bottom, right)).", code="bad-part")
    photo, box = pair
    try:
        sides = [index(side) for side in box]
        if len(sides) != len(_SIDES):
            raise TypeError
    except TypeError:
        raise VizError(
            f"{subject} has the part {quoted(box)}; it must be four whole numbers: top, left, bottom and right.",
            code="bad-part",
        ) from None
    return Part(photo, _not_empty(subject, sides))


def _not_empty(subject: str, sides: Sequence[int]) -> Box:
    top, left, bottom, right = sides
    if top >= bottom or left >= right:
        raise VizError(
            f"{subject} has an empty part: top {quoted(top)}, left {quoted(left)}, bottom {quoted(bottom)}, right "
            f"{quoted(right)}; bottom must be larger than top, and right larger than left.",
            code="empty-part",
        )
    return top, left, bottom, right


def _from_file(path: Path) -> list[Part]:
    """The parts of a CSV file whose first row names the columns; relative paths start from its folder."""
    subject = showable(str(path))
    try:
        reader = csv.reader(io.StringIO(read_file(path, _LARGEST).decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except FileNotFoundError:
        raise VizError(f"There is no file {subject}.{_siblings(path)}", code="no-such-file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise VizError(f"{subject} cannot be read as a CSV file: {why}.", code="list-damaged") from None
    columns = [cell.lower() for cell in rows[0][1]] if rows else []
    missing = [name for name in ("path", *_SIDES) if name not in columns]
    if missing:
        raise VizError(
            f"{subject} has no column {' and no column '.join(missing)}; its first row must name path, top, left, bottom and "
            "right.",
            code="missing-column",
        )
    return [_from_row(path, line, dict(zip(columns, row, strict=False))) for line, row in rows[1:]]


def _siblings(path: Path) -> str:
    try:
        return nearest(path.name, (showable(other.name) for other in path.parent.glob("*.csv")))
    except OSError:
        return ""


def _from_row(path: Path, line: int, cells: dict[str, str]) -> Part:
    subject = f"Row {line} of {showable(str(path))}"
    if not cells["path"]:
        raise VizError(f"{subject} names no photo; give its path.", code="bad-part")
    sides = []
    for name in _SIDES:
        text = cells.get(name, "")
        try:
            sides.append(int(text))
        except ValueError:
            raise VizError(
                f"{subject} has {plain_name(text)!r} as {name}; it must be a whole number of pixels.", code="bad-part"
            ) from None
    return Part(path.parent / local_path(cells["path"], "photo"), _not_empty(subject, sides))
