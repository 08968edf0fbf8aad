"""Targets as text, for the command line and for links: `class=dog cell=12,30`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vizapp.errors import VizError, plain_name, quoted, read_index
from vizapp.media.picture import open_picture
from vizapp.zoo.target import Target

_KEYS = ("class", "cell", "region", "box", "embedding", "head")
_PART = re.compile(rf"(?:^|(?<=\s))({'|'.join(_KEYS)})=")
_NUMBER = r"-?[0-9]{1,6}(?:\.[0-9]{1,4})?"
_MOST_TOLD = 60


def read_target(text: str, files: bool = True) -> Target:
    """A target from `KEY=VALUE` parts separated by spaces.

    Keys: `class` (name or number), `cell` (row,column), `region` (whole, predicted, top,left,bottom,right in pixels, or the
    path of a picture of the crop's size whose bright pixels are the region), `box` (top,left,bottom,right or the number of a
    detection), `embedding` (path of a photo), `head` (name).

    Without `files`, as for links, the path of a mask is refused; that of a photo stays a text in any case.

    Raises:
        VizError: the text has another form.
    """
    pieces = _PART.split(text.strip())
    names, values = pieces[1::2], [value.strip() for value in pieces[2::2]]
    if pieces[0].strip() or not names or len(set(names)) < len(names) or not all(values):
        raise _wrong(text)
    given = dict(zip(names, values, strict=True))
    number = read_index(given["class"]) if "class" in given else None
    return Target(
        class_=given.get("class") if number is None else number,
        cell=_numbers(given["cell"], 2, text) if "cell" in given else None,  # type: ignore[arg-type]
        region=_region(given["region"], text, files) if "region" in given else None,
        box=_box(given["box"], text) if "box" in given else None,
        embedding=given.get("embedding"),
        head=given.get("head"),
    )


def target_text(target: Target) -> str:
    """The text that `read_target` reads as this target, whose region and embedding are no arrays."""
    values = (target.class_, target.cell, target.region, target.box, target.embedding, target.head)
    return " ".join(f"{key}={_text(value)}" for key, value in zip(_KEYS, values, strict=True) if value is not None)


def _text(value: object) -> str:
    return ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else str(value)


def _numbers(value: str, count: int, text: str) -> tuple[int, ...]:
    parts = [read_index(part.strip()) for part in value.split(",")]
    if len(parts) != count or None in parts:
        raise _wrong(text)
    return tuple(part for part in parts if part is not None)


def _region(value: str, text: str, files: bool) -> str | tuple[int, int, int, int] | np.ndarray:
    if re.fullmatch(rf"{_NUMBER}(,{_NUMBER})+", value):
        top, left, bottom, right = _numbers(value, 4, text)
        return top, left, bottom, right
    if Path(value).suffix:
        if not files:
            raise _wrong(text)
        return open_picture(value).pixels.max(2) > 127
    return value


def _box(value: str, text: str) -> tuple[float, float, float, float] | int:
    if (number := read_index(value)) is not None:
        return number
    if not re.fullmatch(rf"{_NUMBER}(,{_NUMBER}){{3}}", value):
        raise _wrong(text)
    top, left, bottom, right = map(float, value.split(","))
    return top, left, bottom, right


def _wrong(text: str) -> VizError:
    return VizError(
        f"{quoted(plain_name(text, _MOST_TOLD))} is not a target; use parts such as class=dog, cell=ROW,COLUMN, region=whole, "
        "region=predicted, region=TOP,LEFT,BOTTOM,RIGHT, box=TOP,LEFT,BOTTOM,RIGHT, box=NUMBER, embedding=PHOTO and head=NAME, "
        "separated by spaces.",
        code="bad-target",
    )
