"""Interventions as text, for the command line and for links: `features.10:3,7=0`, `layer4:all=mean:samples`."""

from __future__ import annotations

import re

from vizapp.errors import VizError, plain_name, quoted
from vizapp.zoo.interventions import Intervention, channel_list, named_place

_FORM = re.compile(
    r"(?P<site>[^\s].*?):(?P<channels>all|[0-9][0-9, -]*)(?P<cells>(?:@[0-9]+,[0-9]+)*)=(?P<how>.*)", re.DOTALL
)
_MOST = 100_000  # channels; no layer has more
MOST_TOLD = 60  # characters of a text in a sentence about it: it may list hundreds of channels


def read_intervention(text: str) -> Intervention:
    """An intervention from `SITE:CHANNELS[@ROW,COL…]=HOW`.

    CHANNELS is `3`, `3,7`, `3-9` or `all`. HOW is a factor from 0 to 3, `mean` (over the folder of the question), `mean:`
    with a number or a folder, `add:NUMBER`, `freeze:PHOTO` or `skip`.

    Raises:
        VizError: the text has another form.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise _wrong(text)
    operation, _, value = found["how"].strip().partition(":")
    if operation in ("mean", "add", "freeze", "skip"):
        if (operation == "skip") == bool(value) and operation != "mean":
            raise _wrong(text)
    else:
        operation, value = "scale", found["how"].strip()
    number = _number(value)
    if number is None and operation in ("scale", "add"):
        raise _wrong(text)
    given = (number if number is not None else value) if value and operation != "freeze" else value or 0.0
    cells = [(int(row), int(column)) for row, column in re.findall(r"@([0-9]+),([0-9]+)", found["cells"])]
    return Intervention(found["site"], _channels(found["channels"], text), operation, given, cells or None)  # type: ignore[arg-type]


def in_words(given: Intervention) -> str:
    """The intervention for people, as facts of results tell it: `features.10: channels 3, 7 × 0`."""
    if given.operation == "skip":
        return f"{given.site}: branch skipped"
    channels = channel_list(given.channels)
    where = named_place(given.site, channels, given.cells)
    value = f"{given.value:g}" if isinstance(given.value, (int, float)) else str(given.value)
    words = {"scale": f"× {value}", "add": f"+ {value}", "freeze": f"= values on {value}"}
    mean = (
        f"= mean over {value}"
        if isinstance(given.value, str)
        else f"= {value}"
        if given.value
        else "= mean over the folder"
    )
    return f"{where} {words.get(given.operation, mean)}"


def _channels(text: str, whole: str) -> list[int] | None:
    if text == "all":
        return None
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdigit() or (dash and not last.isdigit()):
            raise _wrong(whole)
        start, end = int(first), int(last or first)
        if not start <= end < start + _MOST:
            raise _wrong(whole)
        found += range(start, end + 1)
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _wrong(text: str) -> VizError:
    return VizError(
        f"{quoted(plain_name(text, MOST_TOLD))} is not an intervention; use SITE:CHANNELS=FACTOR with CHANNELS as 3, 3,7, 3-9 "
        "or all, as in features.10:3,7=0. In place of a factor: mean:FOLDER, mean:NUMBER, add:NUMBER, freeze:PHOTO or skip.",
        code="bad-intervention",
    )
